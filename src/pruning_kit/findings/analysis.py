"""From a stored run to everything said about it: one frozen value, no model needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from pruning_kit.findings.bridging import Both, Bridging, bridging
from pruning_kit.findings.budgets import (
    CHEAP_RATIO,
    Budget,
    Choice,
    choose,
    recommend,
    turning_point,
)
from pruning_kit.findings.elsewhere import Elsewhere, elsewhere
from pruning_kit.findings.evidence import Interval, Scores
from pruning_kit.findings.importance import (
    Importance,
    Interaction,
    NotAvailable,
    Shapley,
    interactions,
    leave_one_out,
    shapley_values,
)
from pruning_kit.findings.recovered import RecoveredRow, recovered_rows
from pruning_kit.findings.reordered import Reordered, reordered
from pruning_kit.findings.sizes import Avoid, PlanLatency, PlanRow, Size, avoid, plan_rows, sizes
from pruning_kit.intervals import MIN_ROUNDS, windows
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.runs.facts import NLL, Role
from pruning_kit.speed.timings import END_TO_END, Timings

if TYPE_CHECKING:
    from pruning_kit.runs.results import Run

CHECKED_AUTOCORRELATION = 0.75
COLLAPSE_RATIO = 10.0


@dataclass(frozen=True)
class Text:
    """A text of the run."""

    role: Role
    title: str
    short: str
    """The title without what the run's two texts share, such as the author."""
    n_windows: int
    n_tokens: int
    """Tokens that were scored."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that a run says about a model's blocks."""

    n_blocks: int
    reported: Text
    """The text that figures belong to."""
    selection: Text
    """The text that plans are chosen on; equal to `reported` where the run holds one text."""
    scores: Scores
    """Any further interval: `analysis.scores.ppl_ratio(Plan((1,)), Plan((2,)))`."""
    selection_scores: Scores
    """The same on the text chosen on."""
    elsewhere: tuple[Elsewhere, ...]
    """What further texts say of the same plans."""
    autocorrelation: float
    """Of neighbouring windows, by the first plan that was measured in full."""
    rows: tuple[PlanRow, ...]
    """Every measured plan, smaller sets first, but for the stack without any block."""
    importance: Importance
    shapley: Shapley | NotAvailable
    interactions: tuple[Interaction, ...]
    sizes: tuple[Size, ...]
    avoid: tuple[Avoid, ...]
    turning_point: int
    """Blocks to remove before the costs rise sharply."""
    recommended: Plan
    """What to remove where no limit is set; the empty plan keeps the whole model."""
    timings: Timings | None
    """What milliseconds come from; None where nothing was timed."""
    bridging: Bridging | None = None
    """What bridging changes, by whichever cost plans are judged; None where none is bridged."""
    recovered: tuple[RecoveredRow, ...] = ()
    """Every form of plans that were measured with weights of their own too."""
    reordered: tuple[Reordered, ...] = ()
    """Whether recovery changes the choice: sizes of which several plans were recovered alike."""

    @property
    def two_texts(self) -> bool:
        """Whether plans are chosen on another text than the reported one."""
        return self.selection != self.reported

    @property
    def judged_bridged(self) -> bool:
        """Whether plans are judged as bridged where they are, by all that is said."""
        return bool(self.scores.bridged)

    @property
    def tested(self) -> bool:
        """Whether there are windows enough on the text chosen on to tell plans apart."""
        return self.selection_scores.has_intervals

    @cached_property
    def row(self) -> Mapping[Plan, PlanRow]:
        """The row of each plan."""
        return {row.plan: row for row in self.rows}

    @property
    def baseline(self) -> PlanRow | None:
        """The whole model; None if it was not among the plans."""
        return self.row.get(Plan())

    @property
    def front(self) -> tuple[PlanRow, ...]:
        """The Pareto front, from the most parameters to the fewest."""
        return tuple(row for row in self.rows if row.on_front)

    @property
    def failed(self) -> tuple[PlanRow, ...]:
        """Plans whose forward was not finite in some window."""
        return tuple(row for row in self.rows if row.failed)

    @property
    def cheap(self) -> Plan:
        """The largest best set that costs at most 10 % on both texts; the empty plan if none."""
        found = [
            size.best
            for size in self.sizes
            if max(self.row[size.best].selection_ratio, self.row[size.best].ppl_ratio.value)
            <= CHEAP_RATIO
        ]
        return found[-1] if found else Plan()

    @property
    def cheapest(self) -> Size | None:
        """The size whose best set costs least by the text chosen on; None if there is none."""
        return min(self.sizes, key=lambda size: size.selection_increase, default=None)

    @property
    def offers_choice(self) -> bool:
        """Whether several sets of one size were measured, so that a best one was chosen."""
        return any(size.n_measured > 1 for size in self.sizes)

    @property
    def ruinous(self) -> tuple[int, ...]:
        """Blocks whose removal alone ruins the model, so that pairs with them mean little."""
        items = self.importance.items
        return tuple(item.block for item in items if item.ppl_ratio.value > COLLAPSE_RATIO)

    @property
    def sound_interactions(self) -> tuple[Interaction, ...]:
        """The pairs neither of whose blocks ruins the model alone."""
        ruined = set(self.ruinous)
        return tuple(p for p in self.interactions if not {p.first, p.second} & ruined)

    @property
    def complete(self) -> bool:
        """Whether every removable set of blocks was measured in full."""
        return sum(not row.failed for row in self.rows) == 2**self.n_blocks - 1

    def choose(self, budget: Budget) -> Choice:
        """The best plan within a budget; see `budgets.choose`."""
        return choose(self.rows, budget)

    def difference(self, plan: Plan, other: Plan) -> Interval:
        """log PPL of one plan minus that of another on the reported text, paired."""
        return self.scores.difference(plan, other)


def analyse(run: Run, cost: Cost | str = Cost.bridged) -> Analysis:
    """Analyse what a stored run measured.

    Args:
        run: the run.
        cost: what plans are judged by: `bridged` where they are, or all of them `as cut`.

    Raises:
        PlanError: if the cost is none.
    """
    role, texts, cost = run.facts.choosing_role, run.facts.texts, Cost(cost)
    further = [other for other in run.facts.further_roles if run.as_cut("nll", other) is not None]
    both = {one: _both(run, one) for one in dict.fromkeys(("reported", role, *further))}
    scores = {one: found.by(cost) for one, found in both.items()}
    found = analyse_scores(
        scores["reported"],
        scores[role],
        run.n_blocks,
        run.parameters,
        latencies(run) if _timed_enough(run) else {},
        titles=(texts["reported"].title, texts[role].title),
        further={other: (texts[other].title, scores[other]) for other in further},
        random_seed=run.facts.proposal.seed,
        timings=run.timings,
        as_cut=both["reported"].as_cut,
    )
    compared = [found.reported, *(one.text for one in found.elsewhere)]
    on_texts = [(text, both[text.role]) for text in compared]
    return replace(
        found,
        bridging=bridging(both["reported"], both[role], on_texts, run.n_blocks),
        recovered=recovered_rows(run),
        reordered=reordered(run),
    )


def _both(run: Run, role: Role) -> Both:
    """The sums of a run's plans on a text, by either cost."""
    by_cost = {cost: run.judged_by(cost) for cost in Cost}
    as_cut = _scores(run, by_cost[Cost.as_cut], role)
    if by_cost[Cost.bridged] == by_cost[Cost.as_cut]:
        return Both(as_cut, as_cut)
    return Both(as_cut, _scores(run, by_cost[Cost.bridged], role))


def _scores(run: Run, variants: Sequence[Variant], role: Role) -> Scores:
    """The sums of variants on a text, one of each plan."""
    nll_PN = run.sums_of(variants, NLL, role)
    assert nll_PN is not None, "every round takes it"
    others = {name: run.sums_of(variants, name, role) for name in ("kl", "agreement")}
    return Scores.of(
        [variant.plan for variant in variants],
        nll_PN,
        run.targets(role),
        others={name: sums for name, sums in others.items() if sums is not None},
        bridged=(variant.plan for variant in variants if variant.recovery),
    )


def _timed_enough(run: Run) -> bool:
    """Whether timings have intervals: a latency without one supports no choice."""
    return run.timings is not None and len(run.timings.rounds) >= MIN_ROUNDS


def latencies(run: Run) -> dict[Plan, PlanLatency]:
    """End-to-end latency of the plans that were timed or do the same work as one that was.

    Too few rounds give no interval.
    """
    if run.timings is None:
        return {}
    found: dict[Plan, PlanLatency] = {}
    for pool in run.timings.pools:
        summary = run.timings.summary(pool[0])
        timed, claimed = summary.end_to_end_s, summary.claimed[END_TO_END]
        bounds = (timed.ratio.low, timed.ratio.high) if _timed_enough(run) else ()
        ratio = Interval(timed.ratio.value, *bounds)
        others = run.timings.timed_for(pool[0])
        for plan in pool:
            stands_in = () if plan in others else others
            found[plan] = PlanLatency(timed.median_s, ratio, claimed, stands_in)
    return found


def analyse_scores(
    reported: Scores,
    selection: Scores,
    n_blocks: int,
    parameters: Mapping[Plan, int],
    latency: Mapping[Plan, PlanLatency],
    titles: tuple[str, str] = ("the text", "the text"),
    further: Mapping[Role, tuple[str, Scores]] | None = None,
    random_seed: int = 0,
    timings: Timings | None = None,
    as_cut: Scores | None = None,
) -> Analysis:
    """The analysis of plain scores; `selection` is `reported` where there is one text only.

    `further` are titles and scores of other texts, `random_seed` is that of the strategy `random`,
    and `as_cut` are the reported scores of plans as cut, where they are judged bridged.
    """
    rows = plan_rows(reported, selection, n_blocks, parameters, latency, as_cut)
    by_size = sizes(reported, selection, n_blocks, parameters, random_seed)
    first = next(iter(reported.place.values()), None)
    others = [titles[1], *(title for title, _ in (further or {}).values())]
    other = next((title for title in others if title != titles[0]), titles[0])
    text = _text("reported", (titles[0], other), reported)
    chosen_on = text if selection is reported else _text("selection", titles[::-1], selection)
    return Analysis(
        n_blocks=n_blocks,
        reported=text,
        selection=chosen_on,
        scores=reported,
        selection_scores=selection,
        elsewhere=elsewhere(
            reported,
            [
                (_text(role, (title, titles[0]), scores), scores)
                for role, (title, scores) in (further or {}).items()
            ],
            n_blocks,
        ),
        autocorrelation=0.0
        if first is None
        else windows.autocorrelation(reported.nll_PN[first], reported.targets_N),
        rows=rows,
        importance=leave_one_out(reported, n_blocks),
        shapley=shapley_values(reported, n_blocks),
        interactions=interactions(reported, n_blocks),
        sizes=by_size,
        avoid=avoid(selection, n_blocks),
        turning_point=turning_point(by_size),
        recommended=recommend(by_size, {row.plan: row for row in rows}),
        timings=timings,
    )


def _text(role: Role, titles: tuple[str, str], scores: Scores) -> Text:
    """A text by its own title and the other one's."""
    n_tokens = int(scores.targets_N.sum())
    return Text(role, titles[0], _short_title(*titles), scores.n_windows, n_tokens)


def _short_title(title: str, other: str) -> str:
    """What tells a title from another one: `Emma` of `Jane Austen, Emma`; itself if equal."""
    parts, others = title.split(", "), other.split(", ")
    while title != other and min(len(parts), len(others)) > 1 and parts[0] == others[0]:
        parts, others = parts[1:], others[1:]
    return ", ".join(parts)
