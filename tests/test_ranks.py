"""Several processes on one run: who takes what, and what survives the death of one."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import TEXT, save_tiny_gpt2
from torch.distributed import TCPStore

from pruning_kit.errors import DeviceError
from pruning_kit.inputs.windows import even_batch_size
from pruning_kit.runs import ranks as ranks_module
from pruning_kit.runs.ranks import Ranks, current_ranks
from pruning_kit.runs.results import load_run


@given(st.integers(1, 9), st.lists(st.integers(1, 85), max_size=60))
def test_every_group_is_taken_by_exactly_one_rank(size, sizes):
    taken = [Ranks(rank, size).takes(sizes) for rank in range(size)]
    assert sorted(group for groups in taken for group in groups) == list(range(len(sizes)))


@given(st.integers(1, 9), st.lists(st.integers(1, 85), min_size=1, max_size=60))
def test_no_rank_has_more_than_another_by_more_than_one_group(size, sizes):
    loads = [sum(sizes[g] for g in Ranks(rank, size).takes(sizes)) for rank in range(size)]
    assert max(loads) - min(loads) <= max(sizes)


@given(st.integers(1, 3000), st.integers(1, 100), st.integers(2, 16))
def test_a_shared_run_has_as_many_batches_for_each_process(n_windows, largest, n_processes):
    batch = even_batch_size(n_windows, largest, n_processes)
    assert 1 <= batch <= largest
    each = -(-n_windows // (largest * n_processes))
    assert (each * n_processes - 1) * batch < n_windows + each * n_processes
    assert -(-n_windows // batch) <= each * n_processes


def test_batches_of_a_shared_run():
    """Of the windows of one shape: the first of a text and its last go alone."""
    assert even_batch_size(490, 85, 1) == 85
    assert even_batch_size(490, 85, 2) == 82
    assert even_batch_size(490, 85, 4) == 62
    assert even_batch_size(3, 85, 4) == 1


def test_one_process_alone_needs_no_store(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    current_ranks.cache_clear()
    ranks = current_ranks()
    assert (ranks.rank, ranks.size, ranks.leads) == (0, 1, True)
    assert ranks.share("folder", "here") == "here"
    ranks.wait_for_all("measured")


@pytest.fixture
def environment(monkeypatch):
    """Set what a scheduler sets, and nothing else of it."""

    def put(**values):
        current_ranks.cache_clear()
        for name in ("MASTER_ADDR", *ranks_module.NUMBERS):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    yield put
    current_ranks.cache_clear()


@pytest.mark.parametrize(
    "values",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": ""},
        {"WORLD_SIZE": "many", "LOCAL_RANK": "1", "MASTER_PORT": "x"},
        {"RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"WORLD_SIZE": "4", "MASTER_ADDR": "node", "MASTER_PORT": "1", "LOCAL_RANK": "0"},
    ],
)
def test_what_a_scheduler_sets_for_itself_is_no_torchrun(environment, values):
    environment(**values)
    assert current_ranks() == Ranks()


WHOLE = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"MASTER_PORT": ""}, "MASTER_PORT is not"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK is not"),
        ({"LOCAL_WORLD_SIZE": "two"}, "LOCAL_WORLD_SIZE is 'two', no number"),
        ({"LOCAL_RANK": "2"}, "their numbers contradict each other"),
        ({"MASTER_PORT": "99999"}, "their numbers contradict each other"),
    ],
)
def test_a_rank_that_cannot_find_the_others_is_one_sentence(environment, changes, why):
    environment(**{**WHOLE, **changes})
    with pytest.raises(DeviceError) as error:
        current_ranks()
    assert str(error.value) == (
        f"cannot join the other processes: RANK=1 and WORLD_SIZE=2 are set, but {why}. "
        "Start all of them with torchrun, or unset RANK to run alone."
    )


def test_ranks_agree_on_the_folder_and_wait_for_each_other():
    stores = [TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)]
    stores.append(TCPStore("127.0.0.1", stores[0].port, is_master=False, wait_for_workers=False))
    events = []

    def follow():
        ranks = Ranks(1, 2, store=stores[1])
        events.append(ranks.share("folder", None))
        time.sleep(0.05)
        events.append("measured")
        ranks.wait_for_all("done")

    follower = threading.Thread(target=follow)
    follower.start()
    leader = Ranks(0, 2, store=stores[0])
    assert leader.share("folder", "results/shared") == "results/shared"
    leader.wait_for_all("done")
    assert events == ["results/shared", "measured"]
    follower.join()


def test_of_processes_that_fail_alike_only_the_first_speaks(monkeypatch):
    monkeypatch.setattr(ranks_module, "A_MOMENT", timedelta(milliseconds=50))
    hosted = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    joined = TCPStore("127.0.0.1", hosted.port, is_master=False, wait_for_workers=False)
    first, second = Ranks(0, 2, store=hosted), Ranks(1, 2, store=joined)
    assert second.should_say("no space left on my disk")
    assert first.should_say("no such model")
    assert not second.should_say("no such model")
    assert second.should_say("no space left on my disk")
    assert Ranks().should_say("anything")


def command(n_processes, model, text, folder):
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(n_processes), "-m", "pruning_kit", "sweep"),
        *("--mode", "combinatorial", "--model", str(model), "--dataset", str(text)),
        *(
            "--device",
            "cpu",
            "--no-speed",
            "--batch-size",
            "1",
            "--threads",
            "1",
            "--output",
            str(folder),
        ),
        "--resume",
    ]


@pytest.mark.slow
def test_a_run_of_three_processes_survives_the_death_of_one_bit_for_bit(tmp_path):
    model = save_tiny_gpt2(tmp_path / "tiny")
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 100, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    process = subprocess.Popen(
        command(3, model, text, shared), env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    parts = shared / "rounds" / "000"
    wait_for_parts(parts, 5, process)
    workers = psutil.Process(process.pid).children()
    workers[1].send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    done = len(list(parts.glob("*.safetensors")))
    subprocess.run(command(2, model, text, shared), env=env, check=True, capture_output=True)
    subprocess.run(command(1, model, text, alone), env=env, check=True, capture_output=True)
    first, second = load_run(shared), load_run(alone)
    assert done < len(second.facts.windows["reported"].groups)
    np.testing.assert_array_equal(first.nll(), second.nll())


def wait_for_parts(parts: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not (parts.is_dir() and len(list(parts.glob("*.safetensors"))) >= count):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
