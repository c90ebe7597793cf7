"""Batch sizes: what fits is estimated from the machine's limits, and a full GPU is no end."""

from pathlib import Path

import pytest
import torch
from families import N_BLOCKS, random_tokens, tiny_model

from pruning_kit.errors import DeviceError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.machine.memory import control_group_room
from pruning_kit.plans.paths import as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.walk import batching
from pruning_kit.walk.batching import choose_batch_size, sums_within_memory
from pruning_kit.walk.reference import ReferenceKernel
from pruning_kit.walk.sums import nll_sums

PLANS = [Plan(), *singles(N_BLOCKS)]
PATHS = [as_cut(plan, N_BLOCKS) for plan in PLANS]
TOKENS = random_tokens(5, 21)
WINDOWS = (TOKENS[:, :20], TOKENS[:, 11:], 10)


@pytest.fixture(scope="module")
def kernel() -> ReferenceKernel:
    return ReferenceKernel(Decoder(tiny_model("gpt2")), exact_head=True)


class SmallMemory(ReferenceKernel):
    """A device that holds `capacity` windows at a time."""

    capacity = 2

    def open(self, tokens_BT, targets_BS, first_output):
        if len(tokens_BT) > self.capacity:
            raise torch.OutOfMemoryError("full")
        return super().open(tokens_BT, targets_BS, first_output)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_out_of_memory_halves_the_batch_until_it_fits_and_tells(kernel):
    small = SmallMemory(kernel.decoder, exact_head=True)
    sums, micro_batch = sums_within_memory(small, PATHS, *WINDOWS)
    assert micro_batch == 2  # 5, 3, 2
    torch.testing.assert_close(sums["nll"], nll_sums(kernel, PLANS, N_BLOCKS, *WINDOWS))


def test_without_pressure_the_batch_stays_whole(kernel):
    assert sums_within_memory(kernel, PATHS, *WINDOWS)[1] == 5


def test_a_window_that_never_fits_is_the_users_error(kernel):
    tiny = SmallMemory(kernel.decoder, exact_head=True)
    tiny.capacity = 0
    with pytest.raises(
        DeviceError, match="cannot compute a window of 20 tokens on cpu: its memory"
    ):
        sums_within_memory(tiny, PATHS, *WINDOWS)


def test_the_batch_size_follows_free_memory(kernel, monkeypatch):
    window_bytes, _ = batching._window_cost(kernel, 3, TOKENS[:1, :20], TOKENS[:1, 11:], 10)
    monkeypatch.setattr(batching, "free_bytes", lambda device: 2 * (7 * window_bytes + 1))
    assert choose_batch_size(kernel, 1, *WINDOWS) == 7


def test_the_batch_size_is_never_larger_than_useful(kernel, monkeypatch):
    monkeypatch.setattr(batching, "free_bytes", lambda device: 10**15)
    state_bytes = 20 * 16 * 4  # tokens, width, float32
    assert choose_batch_size(kernel, 1, *WINDOWS) == batching.CPU_STATE_BYTES // state_bytes


def test_a_window_larger_than_useful_is_still_computed(kernel, monkeypatch):
    monkeypatch.setattr(batching, "free_bytes", lambda device: 10**15)
    monkeypatch.setattr(batching, "CPU_STATE_BYTES", 100)
    assert choose_batch_size(kernel, 1, *WINDOWS) == 1


def test_a_machine_too_small_for_one_window_says_so(kernel, monkeypatch):
    monkeypatch.setattr(batching, "free_bytes", lambda device: 1000)
    with pytest.raises(DeviceError, match="cannot compute a window of 20 tokens on cpu: it takes"):
        choose_batch_size(kernel, 1, *WINDOWS)


def test_more_live_states_need_more_memory(kernel):
    window = (TOKENS[:1, :20], TOKENS[:1, 11:], 10)
    few, _ = batching._window_cost(kernel, 2, *window)
    many, _ = batching._window_cost(kernel, 5, *window)
    assert many - few == 3 * 20 * 16 * 4  # three more float32 states of 20 x 16


def test_version_2_limits_count_from_the_group_up(tmp_path):
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    write(proc / "self", cgroup="0::/box/job")
    write(root / "box", memory__max="1000", memory__current="700", memory__stat="inactive_file 50")
    write(root / "box" / "job", memory__max="max", memory__current="600")
    assert control_group_room(root, proc) == [350]


def test_version_1_limits_are_found_even_where_the_group_is_mounted_as_root(tmp_path):
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    write(proc / "self", cgroup="4:memory:/docker/abc\n1:cpu:/docker/abc")
    write(
        root / "memory",
        memory__limit_in_bytes="2000",
        memory__usage_in_bytes="1500",
        memory__stat="total_inactive_file 100",
    )
    assert control_group_room(root, proc) == [600]


def test_a_group_above_its_limit_has_no_room_rather_than_less(tmp_path):
    write(tmp_path / "proc" / "self", cgroup="0::/")
    write(tmp_path / "cgroup", memory__max="10", memory__current="20")
    assert control_group_room(tmp_path / "cgroup", tmp_path / "proc") == [0]


def test_systems_without_control_groups_set_no_limit(tmp_path):
    assert control_group_room(tmp_path, tmp_path) == []
