"""Fitting: sums, solutions and strengths of many gaps, within bounded memory.

The strength of a gap is chosen where nothing else is removed: solutions from strong to weak are
shortlisted by their error on tokens that were not fitted, and the NLL of the bridged model decides
between these and no bridge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import torch
from torch import Tensor

from pruning_kit.inputs.calibration import Calibration
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.plans.paths import Path, as_cut
from pruning_kit.pruning.bridges.folding import Socket
from pruning_kit.pruning.bridges.gaps import Gap, bridged_path
from pruning_kit.pruning.bridges.moments import Inputs, Moments, Rows, add_up, rows_of
from pruning_kit.pruning.bridges.ridge import errors, solve
from pruning_kit.walk.batching import sums_within_memory
from pruning_kit.walk.kernel import Form, Kernel
from pruning_kit.walk.measures import NLL

STRENGTHS = (1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""From strong to weak."""
SHORTLISTED = 3
TOKENS_AT_ONCE = 4096
UNFITTED_TOKENS = 4096
"""On which the error of a solution is taken."""
ACTIVATION_BYTES = 2**28
GROUP_BYTES = 2**30
"""Of the sums and solutions that are alive at once; more gaps take further passes."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A solution for a gap."""

    strength: float
    error: float
    """On tokens that were not fitted."""
    form: Form


@dataclass(frozen=True, slots=True)
class Fit:
    """How a gap is bridged, or that it is not."""

    gap: Gap
    strength: float | None
    """Relative to the mean of the diagonal; None: not bridged."""
    nats_as_cut: float
    """Per token of the tuning text, with this gap alone."""
    nats: float
    """The same bridged; as cut where it is not."""
    form: Form | None


@dataclass(frozen=True, slots=True, eq=False)
class Fitter:
    """What gaps are fitted with."""

    kernel: Kernel
    """Decides by NLL: the one that the sweep is measured with."""
    exact: Kernel
    """Gives states and activations, in float32."""
    sockets: Mapping[int, Socket]
    calibration: Calibration
    n_blocks: int
    dtype: torch.dtype
    """That weights are saved in."""
    batch_size: int
    """Windows at a time, for the NLL."""

    def fit(self, gaps: Sequence[Gap]) -> Iterator[Fit]:
        """Fit gaps, as many of them at a time as memory is meant for."""
        for group in self._groups(sorted(gaps)):
            yield from self._choose(group, self._shortlists(group))

    def _groups(self, gaps: Sequence[Gap]) -> Iterator[list[Gap]]:
        """Gaps whose sums and solutions are alive at once, those of a block together."""
        group: list[Gap] = []
        used, blocks = 0, set[int]()
        for gap in gaps:
            socket = self.sockets[gap.block]
            n_inputs, width = socket.n_inputs, self._width(socket)
            bytes_of_gap = n_inputs * width * (8 + 8 + 4 * SHORTLISTED)
            needed = bytes_of_gap + (gap.block not in blocks) * n_inputs**2 * 8
            if group and used + needed > GROUP_BYTES:
                yield group
                group, used, blocks = [], 0, set()
                needed = bytes_of_gap + n_inputs**2 * 8
            group.append(gap)
            blocks.add(gap.block)
            used += needed
        if group:
            yield group

    def _width(self, socket: Socket) -> int:
        weight = socket.layer.weight
        assert isinstance(weight, Tensor)
        return weight.numel() // socket.n_inputs

    def _shortlists(self, group: Sequence[Gap]) -> dict[Gap, list[Candidate]]:
        """Solutions of each gap, the one of the least error first."""
        by_block = {b: list(gaps) for b, gaps in groupby(group, key=attrgetter("block"))}
        most = self._windows_at_once(by_block)
        moments = add_up(
            self.exact, inputs_of(self.calibration.fitting, most), by_block, self.sockets
        )
        unfitted = self._unfitted_rows(by_block, most)
        found: dict[Gap, list[Candidate]] = {}
        for block, gaps in by_block.items():
            found |= self._solutions(moments.pop(block), unfitted.pop(block), gaps)
        return found

    def _windows_at_once(self, blocks: Mapping[int, object]) -> int:
        n_inputs = sum(self.sockets[block].n_inputs for block in blocks)
        n_tokens = min(TOKENS_AT_ONCE, ACTIVATION_BYTES // (4 * n_inputs))
        return max(1, n_tokens // self.calibration.fitting.windows[0].n_inputs)

    def _unfitted_rows(self, by_block: Mapping[int, list[Gap]], most: int) -> dict[int, Rows]:
        """Rows of the tuning text, as many tokens as the error is taken on."""
        pieces: dict[int, list[Rows]] = {block: [] for block in by_block}
        n_tokens = 0
        for inputs in inputs_of(self.calibration.tuning, most):
            for block, rows in rows_of(self.exact, inputs, by_block, self.sockets):
                pieces[block].append(rows)
            n_tokens += inputs[0].numel()
            if n_tokens >= UNFITTED_TOKENS:
                break
        return {
            block: Rows(
                torch.cat([rows.inputs_NH for rows in all_of_it]),
                torch.cat([rows.targets_NGD for rows in all_of_it]),
            )
            for block, all_of_it in pieces.items()
        }

    def _solutions(
        self, moments: Moments, unfitted: Rows, gaps: Sequence[Gap]
    ) -> dict[Gap, list[Candidate]]:
        """The best solutions for the gaps of a block; none where the sums are of no use."""
        socket = self.sockets[gaps[0].block]
        found: dict[Gap, list[Candidate]] = {gap: [] for gap in gaps}
        for strength in STRENGTHS:
            maps_GHD = solve(moments, strength, socket.has_bias)
            if maps_GHD is None:
                continue
            for gap, map_HD, error in zip(gaps, maps_GHD, errors(maps_GHD, unfitted), strict=True):
                candidates = found[gap]
                if len(candidates) < SHORTLISTED or error < candidates[-1].error:
                    form = socket.fold(map_HD, self.dtype)
                    candidates.append(Candidate(strength, error, form))
                    candidates.sort(key=attrgetter("error"))
                    del candidates[SHORTLISTED:]
        return found

    def _choose(
        self, group: Sequence[Gap], shortlists: Mapping[Gap, Sequence[Candidate]]
    ) -> Iterator[Fit]:
        """Let the NLL decide between the candidates of each gap and none."""
        as_cut_nats = self.nats([as_cut(gap.plan, self.n_blocks) for gap in group])
        best = {
            gap: Fit(gap, None, nats, nats, None)
            for gap, nats in zip(group, as_cut_nats, strict=True)
        }
        for rank in range(SHORTLISTED):
            tried = {gap: shortlists[gap][rank] for gap in group if len(shortlists[gap]) > rank}
            for gap, candidate in tried.items():
                self.kernel.learn(gap.call, candidate.form)
            paths = [bridged_path(gap.plan, self.n_blocks, tried) for gap in tried]
            for (gap, one), nats in zip(tried.items(), self.nats(paths), strict=True):
                if nats < best[gap].nats:
                    before = best[gap].nats_as_cut
                    best[gap] = Fit(gap, one.strength, before, nats, one.form)
        for gap, fit in best.items():
            if fit.form is not None:
                self.kernel.learn(gap.call, fit.form)
            yield fit

    def nats(self, paths: Sequence[Path]) -> list[float]:
        """NLL per token of the tuning text under each path; NaN where a forward failed."""
        if not paths:
            return []
        totals = torch.zeros(len(paths), dtype=torch.float64)
        n_scored = 0
        for inputs in inputs_of(self.calibration.tuning, self.batch_size):
            sums, _ = sums_within_memory(self.kernel, paths, *inputs)
            totals += sums[NLL.name].sum(dim=1)
            n_scored += inputs[1].numel()
        return (totals / n_scored).tolist()


def inputs_of(text: PreparedText, batch_size: int) -> Iterator[Inputs]:
    """All windows of a text, so many at a time."""
    return (text.tensors(first, end) for first, end in text.groups(batch_size))
