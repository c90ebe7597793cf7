"""Statistics of latency samples under simulated clocks: intervals, null test, pools, line, JSON."""

import json
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import is_dataclass, replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pruning_kit.errors import TimingError
from pruning_kit.intervals import repeats as bootstrap
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.reporting.tables import speed_table
from pruning_kit.reporting.words import doubts
from pruning_kit.reporting.words import speed as verdicts
from pruning_kit.speed import latency, rounds
from pruning_kit.speed.depths import compare_depths
from pruning_kit.speed.stored_timings import READ, StoredTimings, from_json, read, to_json, write
from pruning_kit.speed.threads import Trial
from pruning_kit.speed.timings import (
    BUDGET_ENDED,
    DECODE,
    END_TO_END,
    END_TO_END_PLAIN,
    PREFILL,
    QUANTITIES,
    TARGET_MET,
    Entry,
    Round,
    Timings,
    compare,
)

READING = {
    "time_s": 0.0,
    "load_average": 0.1,
    "cpu_busy_s": 0.0,
    "cpu_steal_s": 0.0,
    "cpu_own_s": 0.0,
    "cpu_mhz": 2500.0,
}
MACHINE = {
    "cores": 2,
    "threads": 1,
    "threads_offered": 1,
    "device": "cpu",
    "device_name": "a test",
}
WORK = {PREFILL: 0.02, DECODE: 0.004, END_TO_END: 0.3}


def draft(n_blocks: int = 1, *, sizes=(0,), target=0.02, budget_s=60.0, seed=0, per_plan=False):
    """A run without rounds over all plans of the given sizes of a model of equal blocks."""
    pools = tuple(tuple(subsets(n_blocks, [size])) for size in sizes)
    return Timings(
        n_blocks=n_blocks,
        protocol={
            "seed": seed,
            "min_rounds": 8,
            "target": target,
            "budget_s": budget_s,
            "batch_size": 2,
            "prompt_tokens": 128,
            "end_to_end_prompt_tokens": 15,
            "end_to_end_new_tokens": 60,
            "warmup_rounds": 1,
            "threads_asked": None,
        },
        machine=MACHINE,
        pools=pools,
        entries=tuple(latency.choose_entries(pools, per_plan)),
        start=READING,
        rounds=(),
        stopped_because=BUDGET_ENDED,
        elapsed_s=0.0,
    )


class NoisyMachine:
    """A clock and a workload: skewed noise, bursts of others' load, spikes, and a slow drift."""

    def __init__(self, seconds: Callable[[int, str], float], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.seconds, self.now, self.load = seconds, 0.0, 0.0

    def clock(self) -> float:
        return self.now

    def sample_round(
        self, order: Sequence[int], quantities: Collection[str]
    ) -> dict[int, dict[str, float]]:
        return {entry: self._sample(entry, quantities) for entry in order}

    def _sample(self, entry: int, quantities: Collection[str]) -> dict[str, float]:
        sample = {q: self._call(entry, q) for q in QUANTITIES if q in quantities}
        if END_TO_END in quantities:
            sample[END_TO_END_PLAIN] = 1.25 * sample[END_TO_END]
        return sample

    def _call(self, entry: int, quantity: str) -> float:
        self.load = 0.9 * self.load + self.random.normal(0, 0.01)
        spike = self.random.exponential(0.4) if self.random.random() < 0.05 else 0.0
        noise = self.random.gamma(1.5, 0.015) + spike + abs(self.load) + 0.002 * self.now
        taken = self.seconds(entry, quantity) * (1 + noise)
        self.now += taken
        return taken


def simulate(timings: Timings, seed: int, slow: dict[int, float] | None = None) -> Timings:
    """Run the rounds of a draft on a noisy machine; `slow` multiplies an entry's time."""

    def seconds(entry: int, quantity: str) -> float:
        kept = timings.n_blocks - timings.entries[entry].plan.size
        share = 0.25 + 0.75 * kept / timings.n_blocks
        return WORK[quantity] * share * (slow or {}).get(entry, 1.0)

    world = NoisyMachine(seconds, seed)
    return rounds.run_rounds(
        timings, world.sample_round, started=0.0, clock=world.clock, read=lambda: READING
    )


def with_samples(timings: Timings, rows: list[list[float]], *, readings=None) -> Timings:
    """A run whose three quantities all hold `rows`, one row a round."""
    rounds = tuple(
        Round(
            tuple(range(len(row))),
            dict.fromkeys((*QUANTITIES, END_TO_END_PLAIN), tuple(row)),
            readings[i] if readings else READING,
        )
        for i, row in enumerate(rows)
    )
    return replace(timings, rounds=rounds, elapsed_s=10.0)


def simulate_null(seed: int) -> Timings:
    return simulate(draft(seed=seed, budget_s=15.0), seed)


def coverage(n_runs: int) -> float:
    covered = [
        simulate_null(seed).null_test[quantity].passed
        for seed in range(n_runs)
        for quantity in QUANTITIES
    ]
    return float(np.mean(covered))


def test_null_intervals_cover_one_about_as_often_as_they_say():
    assert 0.90 <= coverage(60) <= 1.0


@pytest.mark.slow
def test_a_thousand_null_runs_cover_one_in_93_to_97_per_cent():
    passed = np.array(
        [[t.passed for t in simulate_null(seed).null_test.values()] for seed in range(1000)]
    )
    assert np.all((passed.mean(axis=0) >= 0.93) & (passed.mean(axis=0) <= 0.97))


def claims(n_runs: int, factor: float) -> float:
    """How often a plan of the whole model's cost but for `factor` is claimed to differ."""
    timings = draft(6, sizes=(0, 1), budget_s=60.0)
    cost = 1 / (0.25 + 0.75 * 5 / 6)
    slowed = {2: factor * cost, 3: factor * cost}
    return float(
        np.mean(
            [
                simulate(timings, 7000 + seed, slowed).summary(Plan((0,))).claimed[END_TO_END]
                for seed in range(n_runs)
            ]
        )
    )


def test_a_slow_down_of_five_per_cent_is_claimed():
    assert claims(20, 1.05) >= 0.9


def test_a_slow_down_of_half_a_per_cent_is_not_claimed():
    assert claims(20, 1.005) <= 0.05


@pytest.mark.slow
def test_claims_over_two_hundred_runs():
    assert claims(200, 1.05) >= 0.95
    assert claims(200, 1.005) <= 0.05


def test_one_slowed_plan_of_a_depth_is_found_by_the_depth_test():
    timings = draft(4, sizes=(0, 1, 2, 3), per_plan=True, target=0.01, budget_s=200.0)
    equal = simulate(timings, 5)
    assert not equal.depth_test[END_TO_END].differ
    slowed = [entry.plan for entry in timings.entries].index(Plan((1, 2)))
    unequal = simulate(timings, 5, {slowed: 1.05})
    assert unequal.depth_test[END_TO_END].differ
    assert unequal.depth_test[END_TO_END].plan == Plan((1, 2))
    assert unequal.depth_test[END_TO_END].deviation.low > 1.0
    assert any("Try --per-plan" in text for text in doubts.warnings(unequal))


def test_plans_less_apart_than_the_least_claimed_are_not_claimed_to_differ():
    equals = np.tile([1.0, 1.01], (20, 1)) * np.exp(
        np.random.default_rng(3).normal(0, 1e-3, size=(20, 2))
    )
    plans = [Plan((0,)), Plan((1,))]
    fine, coarse = (compare_depths(equals, [[0, 1]], plans, least) for least in (0.005, 0.02))
    assert fine.clear and coarse.clear
    assert fine.deviation.value in (pytest.approx(1.01, abs=1e-3), pytest.approx(0.99, abs=1e-3))
    assert fine.differ and not coarse.differ


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_a_small_deviation_however_clear_hides_no_large_one(order):
    """Two pools: one differs by 1 %, known to 0.1 %; the other by 6 %, known to 1 %."""
    rng = np.random.default_rng(4)
    noise = np.exp(rng.normal(0, [1e-3, 1e-3, 1e-2, 1e-2], size=(30, 4)))
    seconds = (np.array([1.0, 1.01, 1.0, 1.06]) * noise)[:, order]
    groups = [[order.index(0), order.index(1)], [order.index(2), order.index(3)]]
    plans = [Plan((entry,)) for entry in order]
    test = compare_depths(seconds, groups, plans, least=0.02)
    assert test.differ
    assert test.plan in (Plan((2,)), Plan((3,)))
    assert abs(np.log(test.deviation.value)) == pytest.approx(np.log(1.06), rel=0.1)


def test_a_large_deviation_that_is_not_clear_hides_no_clear_small_one():
    rng = np.random.default_rng(4)
    noise = np.exp(rng.normal(0, [1e-3, 1e-3, 0.3, 0.3], size=(30, 4)))
    seconds = np.array([1.0, 1.015, 1.0, 1.05]) * noise
    plans = [Plan((entry,)) for entry in range(4)]
    test = compare_depths(seconds, [[0, 1], [2, 3]], plans, least=0.02)
    assert test.clear and not test.large and test.plan in (Plan((0,)), Plan((1,)))


def test_the_least_difference_claimed_is_the_same_for_either_plan_of_a_pair():
    noise = np.exp(np.random.default_rng(5).normal(0, 1e-5, size=(20, 1)))
    rows = np.concatenate([noise, 1.0199 * np.ones((20, 1))], axis=1)
    for columns in ([0, 1], [1, 0]):
        plans = [Plan((entry,)) for entry in columns]
        test = compare_depths(rows[:, columns], [[0, 1]], plans, least=0.0201)
        assert test.clear and not test.large
        assert compare_depths(rows[:, columns], [[0, 1]], plans, least=0.0195).differ


def test_the_least_difference_claimed_is_that_of_the_null_test_or_the_target():
    timings = simulate(draft(4, sizes=(0, 1, 2, 3)), 5)
    resolution = timings.null_test[END_TO_END].resolution
    for target in (resolution / 2, resolution * 2):
        asked = replace(timings, protocol={**timings.protocol, "target": target})
        assert asked.depth_test[END_TO_END].least == max(resolution, target)


def test_two_runs_agree_and_a_changed_machine_does_not():
    timings = draft(4, sizes=(0, 1, 2, 3))
    first, second = simulate(timings, 1), simulate(timings, 2)
    assert compare(first, second).disagreeing == []
    assert len(compare(first, second).differences) == 9
    changed = simulate(timings, 3, {2: 1.1})
    assert (END_TO_END, Plan((0,))) in compare(first, changed).disagreeing


def test_runs_without_a_common_plan_cannot_be_compared():
    with pytest.raises(TimingError, match="they share no plan but the whole model"):
        compare(simulate(draft(4, sizes=(0, 1)), 1), simulate(draft(4, sizes=(0, 2)), 1))


def test_latency_falls_with_blocks_and_the_line_finds_its_parts():
    timings = simulate(draft(6, sizes=range(6)), 11)
    medians = [timings.summary(Plan(tuple(range(k)))).end_to_end_s.median_s for k in range(6)]
    assert medians == sorted(medians, reverse=True)
    fit = timings.fit[END_TO_END]
    assert fit.fixed_share.covers(0.25)
    assert fit.fixed_s.value == pytest.approx(0.25 * medians[0], rel=0.05)
    assert fit.per_block_s.value == pytest.approx(0.125 * medians[0], rel=0.05)
    assert fit.worst_residual < 0.05


def test_the_line_through_exact_samples_is_exact():
    row = [0.4, 0.4, *(0.1 + 0.1 * kept for kept in (2, 2, 1))]  # size 1 has two entries
    timings = with_samples(draft(3, sizes=(0, 1, 2)), [row] * 8)
    fit = timings.fit[PREFILL]
    assert [fit.fixed_s.value, fit.per_block_s.value] == pytest.approx([0.1, 0.1], abs=1e-12)
    assert fit.fixed_share.value == pytest.approx(0.25, abs=1e-12)
    assert fit.worst_residual == pytest.approx(0.0, abs=1e-12)


def test_summary_pairs_within_rounds_so_common_slowness_cancels():
    rows = [[1.0 * slow, 1.0 * slow, 0.8 * slow, 0.8 * slow] for slow in (1, 3, 1, 9, 2, 1, 1, 5)]
    summary = with_samples(draft(3, sizes=(0, 1)), rows).summary(Plan((1,)))
    ratio = summary.end_to_end_s.ratio
    assert [ratio.low, ratio.value, ratio.high] == pytest.approx([0.8, 0.8, 0.8])
    assert summary.end_to_end_s.median_s == pytest.approx(0.8 * 1.5)
    assert summary.decode_tokens_per_s == pytest.approx(2 / 1.2)
    assert summary.end_to_end_tokens_per_s == pytest.approx(2 * 60 / 1.2)
    assert summary.pooled
    assert summary.claimed[END_TO_END]


def test_the_whole_model_is_its_own_unit():
    timings = simulate(draft(3, sizes=(0, 1)), 1)
    whole = timings.summary(Plan())
    assert whole.end_to_end_s.ratio == bootstrap.Estimate(1.0, 1.0, 1.0)
    assert not whole.pooled
    assert not whole.claimed[END_TO_END]


def test_a_plan_that_was_not_timed_is_refused():
    with pytest.raises(TimingError, match=r"latency of plan 0\+1: this run timed 4 other plans"):
        simulate(draft(3, sizes=(0, 1)), 1).summary(Plan((0, 1)))


def test_a_file_gives_back_every_sample(tmp_path):
    timings = replace(simulate(TRIED, 4), batches=(simulate(draft(2, sizes=(0, 1)), 1),))
    write(tmp_path / "latency.json", timings)
    again = read(tmp_path / "latency.json")
    assert again == timings
    assert again.ratios == timings.ratios


def test_another_schema_is_refused():
    data = to_json(simulate(draft(), 1)) | {"schema": 99}
    with pytest.raises(TimingError) as error:
        from_json(data, "run/latency.json")
    assert str(error.value) == (
        "cannot read the timings in run/latency.json: their schema is 99, this version reads 3. "
        "Delete the file and resume the sweep to time again."
    )


TRIED = replace(
    draft(2, sizes=(0, 1)),
    trials=(Trial(2, ((0.004, 0.005, 0.002),) * 6, 0.1), Trial(1, ((0.004, 0.004, 0.002),), 0.9)),
)


def stored(timings: Timings | None = None) -> dict:
    """Timings as JSON gives them back."""
    return json.loads(json.dumps(to_json(timings or simulate(draft(2, sizes=(0, 1)), 1))))


def paths_of(kind, path=()):
    """The path of every fact that stored timings cannot do without, the first of each list."""
    for name, hint in get_type_hints(kind).items():
        yield [*path, name]
        for place, inner in [((), hint), *(((0,), item) for item in get_args(hint))]:
            holds = hasattr(inner, "__struct_fields__") or is_dataclass(inner)
            if holds and inner is not StoredTimings:
                yield from paths_of(inner, (*path, name, *place))
    if name == "reading":
        yield from ([*path, name, reading] for reading in READ)


REQUIRED = [
    *(path for path in paths_of(StoredTimings) if path != ["schema"]),
    *(["start", name] for name in READ),
]


@pytest.mark.parametrize("path", REQUIRED, ids=lambda path: ".".join(map(str, path)))
def test_stored_timings_without_a_fact_are_refused_by_its_name(path):
    data = stored(simulate(TRIED, 1))
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    name = ".".join(map(str, path)).replace(".0.", "[0].")
    with pytest.raises(TimingError) as error:
        from_json(data, "run/latency.json")
    assert str(error.value) == (
        f"cannot read the timings in run/latency.json: they lack {name}, or hold it in another "
        "form. Delete the file and resume the sweep to time again."
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["pools"].pop(0),
        lambda data: data["entries"].pop(),
        lambda data: data["entries"].pop(0),
        lambda data: data["entries"][-1].update(pool=5),
        lambda data: data["rounds"].clear(),
        lambda data: data["rounds"][-1]["samples"][DECODE].pop(),
        lambda data: data["rounds"][-1]["order"].append(0),
        lambda data: data["pools"][1].append("1+1"),
        lambda data: data["pools"][1].append("0"),
        lambda data: data["pools"][1].append("9999"),
        lambda data: data["entries"][-1].update(plan="none"),
        lambda data: data["rounds"][0]["samples"].pop(DECODE),
        lambda data: data["rounds"][-1]["samples"].update({"other_s": [1.0] * 4}),
        lambda data: data["rounds"][1]["samples"].pop(DECODE),
        lambda data: [t["samples"].pop(END_TO_END_PLAIN, None) for t in data["rounds"][1:]],
        lambda data: data["trials"].append({"threads": 1, "decode_s": [[1.0]], "round_s": 1}),
        lambda data: data["batches"].append(stored() | {"rounds": []}),
        lambda data: data["batches"].append(stored() | {"batches": [stored()]}),
        lambda data: data["batches"].append(stored(simulate(draft(3, sizes=(0, 1)), 1))),
    ],
)
def test_stored_timings_that_do_not_fit_together_are_refused(change):
    data = stored()
    change(data)
    with pytest.raises(TimingError) as error:
        from_json(data, "run/latency.json")
    where = " in batches[0]" if len(data["batches"]) and not data["batches"][0]["rounds"] else ""
    assert str(error.value) == (
        f"cannot read the timings in run/latency.json: they are wrong{where}: plans, pools and "
        "samples do not fit together. Delete the file and resume the sweep to time "
        "again."
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("n_blocks",), 10**9),
        (("n_blocks",), 0),
        (("protocol", "batch_size"), 0),
        (("protocol", "target"), 0.0),
        (("protocol", "budget_s"), 1e300),
        (("machine", "cores"), 0),
        (("machine", "threads"), True),
        (("pools", 1, 0), "x"),
        (("pools", 1, 0), "7" * 5000),
        (("entries", 1, "peak_bytes"), "much"),
        (("entries", 1, "peak_bytes"), -1),
        (("rounds", 0, "samples", DECODE, 1), 0.0),
        (("rounds", 0, "samples", DECODE, 1), math.nan),
        (("rounds", 0, "samples", DECODE, 1), 1e300),
        (("rounds", 0, "reading", "time_s"), 1e300),
        (("rounds", 0, "reading", "cpu_mhz"), "fast"),
        (("elapsed_s",), -1.0),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else f"{value!r:.9}",
)
def test_a_value_that_no_timings_have_is_named(path, value):
    data = stored()
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)[1:]
    with pytest.raises(TimingError) as error:
        from_json(data, "run/latency.json")
    assert str(error.value) == (
        f"cannot read the timings in run/latency.json: they lack {name}, or hold it in another "
        "form. Delete the file and resume the sweep to time again."
    )


def test_rounds_stop_at_the_target_and_look_only_now_and_then():
    easy = simulate(draft(target=1e9), 1)
    assert (len(easy.rounds), easy.stopped_because) == (8, TARGET_MET)
    assert len(simulate(draft(target=0.02, budget_s=500.0), 1).rounds) in {12, 18, 27, 41, 62, 93}


def test_quantities_that_are_known_rest_and_the_others_go_on():
    """Decode alone is noisy; a round of all takes a second, of decode a tenth."""
    random, now = np.random.default_rng(3), 0.0

    def noisy(order: Sequence[int], quantities: Collection[str]) -> dict[int, dict[str, float]]:
        nonlocal now
        now += 1.0 if END_TO_END in quantities else 0.1
        spread = dict.fromkeys(quantities, 0.001) | {DECODE: 0.3}
        if END_TO_END in quantities:
            spread[END_TO_END_PLAIN] = 0.0
        return {
            entry: {name: math.exp(random.normal(0, share)) for name, share in spread.items()}
            for entry in order
        }

    timings = rounds.run_rounds(
        draft(budget_s=14.0), noisy, started=0.0, clock=lambda: now, read=lambda: READING
    )
    counts = [len(timings.seconds(quantity)) for quantity in QUANTITIES]
    assert counts[0] == counts[2] == 8 and counts[1] == len(timings.rounds) > 30
    assert timings.stopped_because == BUDGET_ENDED and timings.unknown == (DECODE,)
    assert set(timings.rounds[-1].samples) == {DECODE}
    assert from_json(json.loads(json.dumps(to_json(timings)))) == timings
    assert doubts.warnings(timings) == []  # no conclusion rests on decode
    findings = verdicts.findings(timings)
    assert any("prefill 8, end to end 8 until known well enough in 14 s" in t for t in findings)
    assert speed_table(timings).rows[1][-1].startswith("0.")


def test_runs_whose_quantities_rested_after_unlike_rounds_are_compared():
    timings = draft(4, sizes=(0, 1, 2, 3))
    first, second = simulate(timings, 1), simulate(timings, 2)
    rested = [
        replace(turn, samples={q: s for q, s in turn.samples.items() if q != PREFILL or i < 9})
        for i, turn in enumerate(first.rounds)
    ]
    shorter = replace(first, rounds=tuple(rested))
    agreement, whole = compare(shorter, second), compare(first, second)
    assert agreement.disagreeing == []
    key = (PREFILL, Plan((0,)))
    assert agreement.differences[key].half_width > whole.differences[key].half_width


def test_rounds_stop_before_the_budget():
    timings = simulate(draft(target=1e-6, budget_s=20.0), 1)
    assert timings.stopped_because == BUDGET_ENDED
    assert 19.0 < timings.elapsed_s <= 20.0


def test_the_first_eight_rounds_may_take_six_budgets_and_are_given_up_beyond():
    assert len(simulate(draft(budget_s=1.5), 1).rounds) == 8
    short = simulate(draft(budget_s=0.3), 1)
    assert len(short.rounds) < 8
    assert short.elapsed_s <= 0.3 or len(short.rounds) == 1  # eight were out of reach
    assert short.summary(Plan()).end_to_end_s.median_s > 0
    assert short.null_test[PREFILL].ratio.high == math.inf
    text = doubts.warnings(short)[0]
    assert "no interval can be given" in text
    assert float(re.search(r"--latency-budget (\d+)", text)[1]) > short.elapsed_s / 6
    hasty = replace(short, protocol={**short.protocol, "budget_s": 40.0})
    advice = "Try a quieter machine, or --latency-budget 48, which may take 288 s."
    assert doubts.warnings(hasty)[0].endswith(advice)
    threaded = replace(hasty, machine={**MACHINE, "threads": 2})
    assert "Try --threads 1, a quieter machine, or" in doubts.warnings(threaded)[0]


def test_every_round_has_an_order_of_its_own():
    timings = simulate(draft(6, sizes=range(6)), 1)
    orders = {turn.order for turn in timings.rounds}
    assert len(orders) > len(timings.rounds) / 2
    assert all(sorted(order) == list(range(8)) for order in orders)


def test_few_entries_stand_for_thousands_of_plans():
    timings = draft(12, sizes=range(12))
    assert len(timings.plans) == 4095
    assert [str(entry.plan) for entry in timings.entries][:4] == ["none", "none", "0", "10+11"]
    assert len(timings.entries) == 14
    largest = [entry.plan for entry in timings.entries if entry.pool == 6]
    assert largest == [Plan(tuple(range(6))), Plan(tuple(range(6, 12)))]


@pytest.mark.parametrize("n_blocks", [3, 4, 6, 8, 12])
def test_every_block_is_kept_by_about_as_many_entries(n_blocks):
    entries = draft(n_blocks, sizes=range(n_blocks)).entries
    keepers = [
        sum(block not in entry.plan.removed for entry in entries) for block in range(n_blocks)
    ]
    assert max(keepers) - min(keepers) <= 2


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(-1000, 1000), min_size=8, max_size=30, unique=True),
    st.floats(-2, 2),
    st.floats(0.1, 4),
)
def test_intervals_move_and_stretch_with_the_samples(values, shift, scale):
    series = np.array(values) / 1000
    plain, moved = bootstrap.estimate(series), bootstrap.estimate(scale * series + shift)
    assert plain.low <= plain.value <= plain.high
    assert moved.value == pytest.approx(scale * plain.value + shift, abs=1e-9)
    assert moved.high - moved.low == pytest.approx(scale * (plain.high - plain.low), rel=1e-5)


def test_trimmed_mean_and_its_error_are_those_of_scipy():
    values = np.random.default_rng(3).exponential(size=(23, 2))
    mean, error = bootstrap.trimmed_mean(values)
    assert mean == pytest.approx(stats.trim_mean(values, 0.2))
    yuen = stats.ttest_ind(values, -values, equal_var=False, trim=0.2).statistic
    assert 2 * mean / (math.sqrt(2) * error) == pytest.approx(yuen)


def rising(last: float, n: int = 20) -> list[list[float]]:
    wobble = np.random.default_rng(0).normal(1, 0.004, (n, 2))
    return (np.linspace(1, last, n)[:, None] * wobble).tolist()


def test_drift_is_told_with_its_size():
    texts = doubts.warnings(with_samples(draft(), rising(1.2)))
    assert any(
        "the whole model took 20 % more time at the end of the run than at its start" in text
        for text in texts
    )
    assert not any(
        "at its start" in text for text in doubts.warnings(with_samples(draft(), rising(1.0)))
    )


def test_a_slow_first_round_is_told_with_the_warm_up_tried():
    rows = rising(1.0)
    rows[0] = [3.0, 3.0]
    texts = doubts.warnings(with_samples(draft(), rows))
    assert any(
        "first round was 3.0× slower" in t and "1 warm-up round was made" in t for t in texts
    )


def test_outliers_are_counted_by_median_absolute_deviation():
    rows = rising(1.0)
    rows[3], rows[9] = [4.0, 1.0], [1.0, 2.0]
    rows[12] = [2.0, 1.0]
    texts = doubts.warnings(with_samples(draft(), rows))
    assert any(
        text.startswith("3 of 40 samples (prefill)")
        and "up to 4.0×" in text
        and "of one model's samples up to 10 % are so slow" in text
        for text in texts
    )


def test_a_failed_null_test_says_what_was_tried_and_what_to_try():
    rows = [[1.0, 1.04 * wobble] for _, wobble in rising(1.0)]
    timings = with_samples(draft(), rows)
    assert not timings.null_test[PREFILL].passed
    text = next(t for t in doubts.warnings(timings) if "differs from itself" in t)
    assert "1.04" in text and "Try again with other programs closed" in text


def doubtful_rows(timings: Timings, step: float, noise: float) -> list[list[float]]:
    """Rounds in which each block removed saves a share of the time, with a noise of its own."""
    saved = np.array([1 - step * entry.plan.size for entry in timings.entries])
    factors = np.exp(np.random.default_rng(2).normal(0, noise, (12, len(saved))))
    return (saved * factors).tolist()


def open_conclusion(**changes: object) -> list[str]:
    """What is said of three depths whose ratios are known to 5 % or so."""
    timings = draft(3, sizes=(0, 1, 2), budget_s=10.0)
    step = changes.pop("step", 0.02)
    machine = {**MACHINE, **changes.pop("machine", {})}
    protocol = {**timings.protocol, **changes.pop("protocol", {})}
    timings = replace(timings, machine=machine, protocol=protocol, **changes)
    timings = with_samples(timings, doubtful_rows(timings, step, 0.08))
    return [text for text in doubts.warnings(timings) if "leave open" in text]


def test_wide_intervals_that_leave_no_conclusion_open_are_no_warning():
    assert open_conclusion(step=0.3) == []


def test_an_open_conclusion_is_a_warning_with_the_pair_and_its_ratio():
    (text,) = open_conclusion()
    assert text.startswith(
        "12 rounds in 10 s leave open which is faster end to end, models with 2 blocks left or the "
        "whole model: a ratio of "
    )
    assert "more pair" in text
    assert open_conclusion(stopped_because=TARGET_MET) == []
    assert open_conclusion(protocol={"target": 1.0}) == []


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"machine": {"threads": 4}}, "Try --threads 2, or a quieter machine."),
        (
            {"machine": {"threads": 4}, "protocol": {"threads_asked": 4}},
            "Try without --threads, so that trials choose their number, or a quieter machine.",
        ),
        (
            {
                "machine": {"threads": 4},
                "trials": (Trial(4, ((1.0, 1.0),) * 6, 0.1), Trial(2, ((1.0, 1.5),) * 6, 0.1)),
                "step": -0.05,
            },
            "Try a quieter machine: more rounds would not settle it within reason here.",
        ),
        (
            {"step": -0.05},
            "Try a quieter machine: more rounds would not settle it within reason here.",
        ),
    ],
)
def test_the_advice_is_one_that_was_not_tried_and_can_work(changes, advice):
    assert open_conclusion(**changes)[0].endswith(advice)


@pytest.mark.parametrize("target", [1e-20, 1e-300])
def test_an_absurd_target_makes_no_row_of_digits(target):
    for text in doubts.warnings(simulate(draft(3, sizes=(0, 1), target=target, budget_s=10.0), 1)):
        assert not re.search(r"\d{6}", text)


def test_more_rounds_are_advised_where_a_few_would_settle_it():
    assert re.search(r"Try --latency-budget \d\d\.$", open_conclusion(step=0.05)[0])


def test_a_failed_null_test_below_the_precision_asked_for_is_no_warning():
    rows = [[1.0, 1.008 * wobble] for _, wobble in rising(1.0)]
    timings = with_samples(draft(), rows)
    assert not timings.null_test[PREFILL].passed
    assert not any("differs from itself" in text for text in doubts.warnings(timings))


def test_the_number_of_threads_and_its_reason_are_said():
    chosen = simulate(replace(TRIED, machine={**MACHINE, "threads_offered": 2}), 1)
    assert re.fullmatch(
        r"2 texts of 75 tokens on 1 of 2 threads of a test\. Fewer threads, because of short "
        r"trials; decode promised ±0\.0 % with 2, no interval \(0\.9 s a round\) with 1",
        verdicts.how_timed(chosen),
    )
    assert any("1 of 2 threads, by short trials; " in text for text in verdicts.findings(chosen))
    asked = simulate(
        replace(chosen, trials=(), protocol={**chosen.protocol, "threads_asked": 1}), 1
    )
    assert "Timed with 1 of 2 threads, as asked for." in verdicts.findings(asked)
    assert verdicts.how_timed(asked) == "2 texts of 75 tokens on 1 of 2 threads of a test"


def test_a_budget_that_was_passed_is_said():
    timings = simulate(draft(budget_s=1.5), 1)
    assert len(timings.rounds) == 8
    said = f"It took {timings.elapsed_s:.0f} s, more than the budget of 1.5 s: an interval needs 8 "
    assert said in verdicts.how_timed(timings)
    alone = simulate(draft(budget_s=0.1), 1)
    assert "the budget of 0.1 s: no round is broken off" in verdicts.how_timed(alone)


def test_load_steal_and_clocks_of_the_machine_are_doubted():
    after = READING | {
        "time_s": 10.0,
        "cpu_busy_s": 18.0,
        "cpu_own_s": 10.0,
        "cpu_steal_s": 1.0,
        "load_average": 3.5,
        "gpu_slowed": 1.0,
    }
    readings = [after | {"cpu_mhz": mhz} for mhz in (3000.0, 2000.0, 3000.0)]
    texts = doubts.warnings(with_samples(draft(), rising(1.0, 3), readings=readings))
    assert any("other programs used 0.8 of 2 cores" in t and "3.5 after" in t for t in texts)
    assert any("beside 1 thread here" in t and "Try a quiet machine." in t for t in texts)
    assert any("the host took 5.0 % of the processor time" in text for text in texts)
    assert any("processor's clock moved between 2000 and 3000 MHz" in text for text in texts)
    assert any("the GPU held its clock down after 3 of 3 rounds" in text for text in texts)


def test_a_quiet_run_has_no_warning_and_its_findings_name_what_was_not_read():
    timings = with_samples(draft(6, sizes=range(6)), _quiet_rows())
    assert doubts.warnings(timings) == []
    timed = [entry.plan.short for entry in timings.entries[2:]]
    assert verdicts.findings(timings) == [
        f"Timed: the whole model (twice), {', '.join(timed[:-1])} and {timed[-1]}, for all of "
        "equal work (no clear difference); 20 interleaved rounds in 10 s (budget ended).",
        "Interruptions, left out, would add 0.0 %. Not offered: processor temperature.",
    ]


def test_plans_of_equal_work_that_differ_are_a_doubt_and_no_finding():
    timings = draft(4, sizes=(0, 1, 2, 3), per_plan=True, target=0.01, budget_s=200.0)
    slowed = [entry.plan for entry in timings.entries].index(Plan((1, 2)))
    unequal = simulate(timings, 5, {slowed: 1.05})
    assert not any("no clear difference" in text for text in verdicts.findings(unequal))


def test_the_table_of_speeds_holds_what_was_measured_of_each_quantity():
    timings = simulate(draft(6, sizes=range(6)), 11)
    table = speed_table(timings)
    assert table.headings == (
        "", "ms", "A block", "Outside", "95 % interval", "Null test", "Known to"
    )  # fmt: skip
    for row, quantity in zip(table.rows, (END_TO_END, PREFILL, DECODE), strict=True):
        fit, null = timings.fit[quantity], timings.null_test[quantity].ratio
        assert row == (
            verdicts.NAMES[quantity],
            f"{1e3 * float(np.median(timings.seconds(quantity)[:, :2])):.3g}",
            f"{1e3 * fit.per_block_s.value:.3g}",
            f"{100 * fit.fixed_share.value:.0f} %",
            f"{100 * fit.fixed_share.low:.0f} to {100 * fit.fixed_share.high:.0f} %",
            f"{null.low:.3f} to {null.high:.3f}",
            f"{100 * timings.widest[quantity][0]:.1f} %",
        )
    assert table.caption.endswith(
        ", 2.0 % wanted. Decode: 1 token; prefill: 128; end to end: 15 continued to 75."
    )


def test_what_end_to_end_milliseconds_are_of_is_said():
    timings = with_samples(draft(6, sizes=range(6)), _quiet_rows())
    assert verdicts.conditions(timings) == "2 texts of 75 tokens on 1 thread of a test"
    gpu = replace(timings, machine={**timings.machine, "device": "cuda", "device_name": "NVIDIA H"})
    assert verdicts.conditions(gpu) == "2 texts of 75 tokens on one NVIDIA H"


def test_plans_that_were_timed_are_named_and_every_one_where_all_were():
    each = with_samples(draft(3, sizes=range(3), per_plan=True), [[1.0] * 8] * 8)
    assert any("(twice) and every plan" in text for text in verdicts.findings(each))
    alone = with_samples(draft(), rising(1.0, 8))
    assert any("(twice) and no other plan;" in text for text in verdicts.findings(alone))


def _quiet_rows(outside_s: float = 0.1, sizes=range(6)) -> list[list[float]]:
    kept = [6 - entry.plan.size for entry in draft(6, sizes=sizes).entries]
    wobble = np.random.default_rng(5).normal(1, 0.004, (20, len(kept)))
    return (wobble * (outside_s + 0.05 * np.array(kept))).tolist()


@pytest.mark.parametrize("outside_s", [0.0, -0.02])
def test_a_line_that_leaves_no_time_outside_the_blocks_gives_no_share(outside_s):
    timings = with_samples(draft(6, sizes=range(6)), _quiet_rows(outside_s))
    assert [row[3:5] for row in speed_table(timings).rows] == [("unclear", "")] * 3


def test_depths_off_the_line_say_nothing_of_the_time_outside_the_blocks():
    rows = np.array(_quiet_rows())
    rows[:, -1] *= 1.3
    timings = with_samples(draft(6, sizes=range(6)), rows.tolist())
    assert timings.fit[END_TO_END].fixed_share.low > 0
    assert speed_table(timings).rows[0][3:5] == ("unclear", "")


def test_two_depths_give_the_saving_of_a_block_and_no_line():
    table = speed_table(with_samples(draft(6, sizes=(0, 1)), _quiet_rows(sizes=(0, 1))))
    assert table.headings == ("", "ms", "A block", "Null test", "Known to")
    assert table.rows[1][:3] == ("prefill", "400", "50.5")
    assert "outside" not in table.caption
    assert speed_table(with_samples(draft(), rising(1.0))).headings[:3] == ("", "ms", "Null test")


def test_a_ratio_known_too_little_is_that_of_all_models_of_its_depth():
    timings = with_samples(draft(6, sizes=(0, 3)), _quiet_rows(sizes=(0, 3)))
    assert verdicts.pool_name(timings, Plan((0, 1, 2))) == "models with 3 blocks left"
    assert verdicts.pool_name(timings, Plan()) == "the whole model"


def test_peak_bytes_come_from_the_plan_itself_where_it_was_timed():
    timings = draft(3, sizes=(0, 1))
    entries = tuple(replace(entry, peak_bytes=100 + i) for i, entry in enumerate(timings.entries))
    timings = simulate(replace(timings, entries=entries), 1)
    assert [timings.summary(Plan((b,))).peak_bytes for b in range(3)] == [102, 102, 103]
    assert entries[0] == Entry(Plan(), 0, 100)
