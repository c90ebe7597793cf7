"""Fitting: sums, solutions and strengths of many gaps, within bounded memory.

The strength of a gap is chosen where nothing else is removed: solutions from strong to weak are
shortlisted by their error on tokens that were not fitted, and the NLL of the bridged model decides
between these and no bridge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter

import torch

from pruning_kit.errors import DeviceError
from pruning_kit.inputs.calibration import Calibration
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.plans.paths import Path, as_cut
from pruning_kit.pruning.bridges.folding import Socket, form_sha256
from pruning_kit.pruning.bridges.gaps import Gap, bridged_path
from pruning_kit.pruning.bridges.moments import Inputs, Moments, Rows, add_up, rows_of
from pruning_kit.pruning.bridges.ridge import error_of, solve
from pruning_kit.walk.batching import sums_within_memory
from pruning_kit.walk.kernel import Form, Kernel
from pruning_kit.walk.measures import NLL

STRENGTHS = (1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""From strong to weak."""
SHORTLISTED = 2
MOST_RISES = 2
SHARE_OF_SUMS = 0.7
"""Of the time that gaps take, for progress."""
TOKENS_AT_ONCE = 4096
UNFITTED_TOKENS = 4096
"""On which the error of a solution is taken."""
ACTIVATION_BYTES = 2**28
CPU_GROUP_BYTES, GPU_GROUP_BYTES = 3 * 2**29, 2**32
"""Of the sums and solutions that are alive at once; more gaps take further passes."""


Advance = Callable[[float], object]


def nowhere(_step: float) -> None:
    """Tell nobody of progress."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A solution for a gap."""

    strength: float
    error: float
    """On tokens that were not fitted."""
    form: Form


@dataclass(frozen=True)
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

    @cached_property
    def sha256(self) -> str | None:
        """Hash of what is folded in; None where nothing is."""
        return None if self.form is None else form_sha256(self.form)


@dataclass(frozen=True, slots=True, eq=False)
class Fitter:
    """What gaps are fitted with."""

    kernel: Kernel
    """Decides by NLL: the one that the sweep is measured with."""
    make_exact: Callable[[], Kernel]
    """Makes what gives states and activations, in float32; it is kept while gaps are fitted."""
    sockets: Mapping[int, Socket]
    calibration: Calibration
    n_blocks: int
    dtype: torch.dtype
    """That weights are saved in."""
    batch_size: int
    """Windows at a time, for the NLL."""

    def fit(self, gaps: Sequence[Gap], advance: Advance = nowhere) -> Iterator[Fit]:
        """Fit gaps, as many of them at a time as memory is meant for.

        Args:
            gaps: each once.
            advance: is told of progress, which adds up to the number of gaps.

        Raises:
            DeviceError: if the device has no room for a single one.
        """
        exact = self.make_exact()
        for group in self._groups(sorted(gaps)):
            shortlists = self._within_memory(exact, group, advance)
            advance(len(group) * (1 - SHARE_OF_SUMS))
            yield from self._choose(group, shortlists)

    def _within_memory(
        self, exact: Kernel, group: Sequence[Gap], advance: Advance
    ) -> dict[Gap, list[Candidate]]:
        """Solutions of a group, by halves of it as often as the device runs out of memory."""
        try:
            return self._shortlists(exact, group, advance)
        except torch.OutOfMemoryError:
            pass  # gone on with outside: the traceback holds the tensors
        torch.cuda.empty_cache()
        if len(group) == 1:
            raise DeviceError(
                f"cannot fit the bridge over {group[0]} on {exact.device}: its memory is full. "
                "Choose another `device`, or leave out `bridges`."
            )
        half = len(group) // 2
        return {
            **self._within_memory(exact, group[:half], advance),
            **self._within_memory(exact, group[half:], advance),
        }

    def _groups(self, gaps: Sequence[Gap]) -> Iterator[list[Gap]]:
        """Gaps whose sums and solutions are alive at once, those of a block together."""
        most = CPU_GROUP_BYTES if self.kernel.device.type == "cpu" else GPU_GROUP_BYTES
        group: list[Gap] = []
        used, blocks = 0, set[int]()
        for gap in gaps:
            socket = self.sockets[gap.block]
            n_inputs, width = socket.n_inputs, socket.n_outputs
            bytes_of_gap = n_inputs * width * (8 + 8 + 4 * SHORTLISTED)
            needed = bytes_of_gap + (gap.block not in blocks) * n_inputs**2 * 8
            if group and used + needed > most:
                yield group
                group, used, blocks = [], 0, set()
                needed = bytes_of_gap + n_inputs**2 * 8
            group.append(gap)
            blocks.add(gap.block)
            used += needed
        if group:
            yield group

    def _shortlists(
        self, exact: Kernel, group: Sequence[Gap], advance: Advance
    ) -> dict[Gap, list[Candidate]]:
        """Solutions of each gap, the one of the least error first."""
        by_block = {b: list(gaps) for b, gaps in groupby(group, key=attrgetter("block"))}
        most = self._windows_at_once(by_block)
        fitting = self.calibration.fitting
        step = len(group) * SHARE_OF_SUMS / len(fitting.groups(most))

        def text() -> Iterator[Inputs]:
            for inputs in inputs_of(fitting, most):
                yield inputs
                advance(step)

        moments = add_up(exact, text(), by_block, self.sockets)
        unfitted = self._unfitted_rows(exact, by_block, most)
        found: dict[Gap, list[Candidate]] = {}
        for block, gaps in by_block.items():
            found |= self._solutions(moments.pop(block), unfitted.pop(block), gaps)
        return found

    def _windows_at_once(self, blocks: Mapping[int, object]) -> int:
        n_inputs = sum(self.sockets[block].n_inputs for block in blocks)
        n_tokens = min(TOKENS_AT_ONCE, ACTIVATION_BYTES // (4 * n_inputs))
        return max(1, n_tokens // self.calibration.fitting.windows[0].n_inputs)

    def _unfitted_rows(
        self, exact: Kernel, by_block: Mapping[int, list[Gap]], most: int
    ) -> dict[int, Rows]:
        """Rows of the tuning text, as many tokens as the error is taken on."""
        pieces: dict[int, list[Rows]] = {block: [] for block in by_block}
        n_tokens = 0
        for inputs in inputs_of(self.calibration.tuning, most):
            for block, rows in rows_of(exact, inputs, by_block, self.sockets):
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
        """The best solutions for the gaps of a block; none where the sums are of no use.

        Of a gap whose error has risen twice no weaker solution is looked at.
        """
        socket = self.sockets[gaps[0].block]
        found: dict[Gap, list[Candidate]] = {gap: [] for gap in gaps}
        rises = dict.fromkeys(gaps, 0)
        for strength in STRENGTHS:
            alive = [place for place, gap in enumerate(gaps) if rises[gap] < MOST_RISES]
            maps_GHD = solve(moments, strength, socket.has_bias, alive) if alive else None
            if maps_GHD is None:
                continue
            for place, map_HD in zip(alive, maps_GHD, strict=True):
                gap = gaps[place]
                error = error_of(map_HD, unfitted, place)
                rises[gap] += bool(found[gap]) and not error < found[gap][0].error
                candidate = Candidate(strength, error, socket.fold(map_HD, self.dtype))
                found[gap] = sorted([*found[gap], candidate], key=attrgetter("error"))
                del found[gap][SHORTLISTED:]
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
        means = totals / n_scored
        return means.where(means.isfinite(), torch.nan).tolist()


def inputs_of(text: PreparedText, batch_size: int) -> Iterator[Inputs]:
    """All windows of a text, so many at a time."""
    return (text.tensors(first, end) for first, end in text.groups(batch_size))
