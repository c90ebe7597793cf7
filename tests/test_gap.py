"""How far searches end from the best sets of runs that hold all of them."""

import pytest

from pruning_kit import analyse, load_run
from pruning_kit.findings.budgets import Budget
from pruning_kit.findings.searching import SEARCHES, is_exhaustive, replayed
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.commands import search_command
from pruning_kit.reporting.contents import build_document
from tests.synthetic_runs import BLOCK_M, WHOLE_M, write_run
from tests.synthetic_scores import additive_costs


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return load_run(write_run(tmp_path_factory.mktemp("full") / "run", timed=False))


def test_every_search_gets_its_distance_to_the_best_set_of_each_size(full):
    found = {one.search.partition(":")[0]: one for one in replayed(full)}
    assert list(found) == list(SEARCHES)
    rows = {row["removed"]: row["ppl"] for row in full.rows()}
    for one in found.values():
        assert [gap.size for gap in one.gaps] == [1, 2, 3, 4, 5]
        for gap in one.gaps:
            best = min(ppl for name, ppl in rows.items() if Plan.parse(name).size == gap.size)
            assert rows[str(gap.best)] == best
            assert gap.ratio == pytest.approx(rows[str(gap.found)] / best)
            assert gap.ratio >= 1 and gap.sure <= (gap.ratio > 1)
    assert found["search"].evaluations <= 32
    assert all(gap.found == gap.best for gap in found["search"].gaps)


def test_a_gap_is_sure_where_the_text_tells_the_two_sets_apart(tmp_path):
    cost = additive_costs([2.0, 0.1, 0.6, 0.1, 0.9])
    run = load_run(write_run(tmp_path / "run", 5, cost=cost, timed=False))
    (spans,) = replayed(run, Cost.as_cut, ["spans"])
    assert str(spans.gaps[1].best) == "1+3" and spans.gaps[1].sure
    assert spans.gaps[1].ratio == pytest.approx(1.65, rel=0.02)


def test_bridged_costs_have_a_gap_of_their_own(tmp_path):
    plain = additive_costs([2.0, 0.2, 0.4, 0.6, 0.8])
    other = additive_costs([2.0, 0.8, 0.6, 0.4, 0.05])
    run = load_run(write_run(tmp_path / "run", 5, cost=plain, bridged=other, timed=False))
    by = {cost: replayed(run, cost, ["search"])[0].gaps[0].best for cost in Cost}
    assert by == {Cost.as_cut: Plan((1,)), Cost.bridged: Plan((4,))}


def test_a_run_without_every_set_has_no_gap(full, tmp_path):
    few = load_run(write_run(tmp_path / "run", plans=[Plan(), Plan((1,))], timed=False))
    assert is_exhaustive(full) and not is_exhaustive(few)
    sections = {one.name: one for one in build_document(full, analyse(full)).sections}
    assert (
        sections["search"]
        .sentences[0]
        .startswith(
            "Every set was measured. A search would have found the best of every size with "
        )
    )
    assert "search" not in {one.name for one in build_document(few, analyse(few)).sections}


@pytest.mark.parametrize(
    ("left", "size"), [(WHOLE_M - 1, 1), (WHOLE_M - BLOCK_M, 1), (WHOLE_M - BLOCK_M - 1, 2)]
)
def test_a_budget_that_no_measured_plan_keeps_is_answered_by_a_search(tmp_path, left, size):
    plans = [Plan(), Plan((1,))] if size > 1 else [Plan(), Plan((1, 2))]
    run = load_run(write_run(tmp_path / "run", 6, plans=plans, timed=False))
    command = search_command(run, analyse(run), left)
    assert command.endswith(f"\npruning-kit sweep --model distilgpt2 --try search:{size}")


def test_no_search_leaves_fewer_parameters_than_there_are_outside_the_blocks(tmp_path):
    run = load_run(write_run(tmp_path / "run", 6, plans=[Plan(), Plan((1,))], timed=False))
    analysis = analyse(run)
    assert search_command(run, analysis, WHOLE_M - 6 * BLOCK_M) == ""
    (section,) = [
        one
        for one in build_document(run, analysis, Budget(max_params=WHOLE_M - 2 * BLOCK_M)).sections
        if one.name == "budget"
    ]
    assert section.code == (
        "# searches for the best set of 2 blocks\n"
        "pruning-kit sweep --model distilgpt2 --try search:2"
    )
