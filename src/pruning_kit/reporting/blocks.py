"""The table of single blocks: perplexity without each, and its Shapley value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.bridging import Ranks
from pruning_kit.findings.importance import Shapley
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.document import Table
from pruning_kit.reporting.tables import (
    BRIDGED,
    INTERVAL,
    as_cut_text,
    bridged_text,
    split_ratio,
)
from pruning_kit.reporting.words.numbers import format_nats, format_ppl


def blocks_table(analysis: Analysis) -> Table | None:
    """Each block: perplexity without it, also bridged with both ranks, and its Shapley value."""
    single = {item.block: item for item in analysis.importance.items}
    shapley = analysis.shapley.values if isinstance(analysis.shapley, Shapley) else None
    if not single and shapley is None:
        return None
    ranks = _ranks_of_blocks(analysis)
    rows = []
    for block in range(analysis.n_blocks):
        item = single.get(block)
        cells = [str(block), *_without_block(analysis, block, ranks)]
        cells += ("", "") if item is None else split_ratio(item.ppl_ratio)
        if shapley is not None:
            value, _, bounds = format_nats(shapley[block]).partition(" [")
            cells += [value, bounds.rstrip("]")]
        rows.append(tuple(cells))
    both = ("As cut", "Rank", BRIDGED, "Rank") if ranks else ("PPL without",)
    notes = ["Perplexity without each block; rank 1 costs least; ratios are bridged"] * bool(ranks)
    notes += ["Shapley: mean cost over all orders of removal, nats per token (0.1: +10.5 %)"] * (
        shapley is not None
    )
    return Table(
        ("Block", *both, "Ratio", INTERVAL, *(("Shapley", INTERVAL) if shapley else ())),
        tuple(rows),
        f"{'. '.join(notes)}." * bool(notes),
        analysis.importance.ranking.most[:1],
    )


def _ranks_of_blocks(analysis: Analysis) -> dict[int, Ranks]:
    """The places of single blocks by either cost; empty where plans are judged as cut."""
    if analysis.bridging is None or not analysis.judged_bridged:
        return {}
    singles = [size for size in analysis.bridging.sizes if size.n_removed == 1]
    return {ranks.plan.removed[0]: ranks for size in singles for ranks in size.ranks}


def _without_block(analysis: Analysis, block: int, ranks: Mapping[int, Ranks]) -> Iterable[str]:
    """Perplexity without a block; where blocks have ranks, as cut and bridged with both."""
    row = analysis.row.get(Plan((block,)))
    if not ranks:
        yield "not measured" if row is None else format_ppl(row.ppl.value)
        return
    places = ranks.get(block)
    yield "not measured" if row is None else as_cut_text(row)
    yield "" if places is None else str(places.as_cut)
    yield "" if row is None else bridged_text(row)
    yield "" if places is None else str(places.bridged)
