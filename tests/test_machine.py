"""Facts and readings of the machine: what it offers, and nothing invented."""

import psutil
import torch

from pruning_kit.machine import devices, readings


def test_the_device_is_the_processor_or_the_gpu_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert devices.device_name(torch.device("cuda", 1)) == "GPU 1"
    assert devices.device_name(torch.device("cpu")) == readings.facts()["processor"]


def test_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _pid: {2, 3, 5}, raising=False)
    assert devices.available_cores() == 3
    monkeypatch.delattr(devices.os, "sched_getaffinity")
    monkeypatch.setattr(devices.os, "cpu_count", lambda: None)
    assert devices.available_cores() == 1


def test_counters_of_two_readings_never_fall():
    first, second = readings.read(), readings.read()
    for key in ("time_s", "cpu_busy_s", "cpu_steal_s", "cpu_own_s"):
        assert second[key] >= first[key]


def test_what_the_machine_does_not_offer_is_left_out(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None, raising=False)
    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)
    assert not {"cpu_mhz", "cpu_celsius"} & set(readings.read())
    chips = {"a": [type("Chip", (), {"current": 40.0})], "b": [type("Chip", (), {"current": 61.5})]}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: chips, raising=False)
    assert readings.read()["cpu_celsius"] == 61.5


def test_a_gpu_reader_adds_to_the_reading():
    reading = readings.reader(lambda: {"gpu_mhz": 1980.0})()
    assert reading["gpu_mhz"] == 1980.0
    assert "load_average" in reading
