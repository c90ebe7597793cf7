"""Bridging: the bridges of a model, fitted when they are first asked for, as a recovery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch

from pruning_kit.errors import NoGainError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.calibration import Calibration
from pruning_kit.plans.paths import Call, Path, as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.bridges.fitting import Advance, Fit, Fitter, nowhere
from pruning_kit.pruning.bridges.folding import Socket, find_sockets
from pruning_kit.pruning.bridges.gaps import Gap, bridged_path, gaps_of
from pruning_kit.walk.batching import choose_batch_size
from pruning_kit.walk.kernel import Form, Kernel


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a plan's bridges help together, by NLL per token of the tuning text."""

    nats_as_cut: float
    nats: float

    @property
    def helps(self) -> bool:
        """Whether the plan is better with them."""
        return self.nats < self.nats_as_cut


@dataclass(frozen=True, slots=True, eq=False)
class Bridges:
    """The bridges of one plan, which is better with them: what is folded into a cut model."""

    plan: Plan
    gaps: Sequence[Gap]
    """All of the plan's that a block stands before."""
    fits: Mapping[Gap, Fit]
    """Of those that are bridged."""
    judgement: Judgement
    calibration: Calibration

    @property
    def forms(self) -> dict[Gap, Form]:
        """What stands in place of the output projections of the blocks before the gaps."""
        return {gap: fit.form for gap, fit in self.fits.items() if fit.form is not None}


LOOK_TOKENS = 16
"""Tell whether a bridge can be folded into a block."""


@dataclass(eq=False)
class Bridging:
    """The bridges of one model."""

    make_fitter: Callable[[], Fitter]
    """Is called when the first gap is to be fitted."""
    refused: Mapping[int, str]
    """Blocks that no bridge can be folded into, and why."""
    n_blocks: int
    calibration: Calibration
    fits: dict[Gap, Fit] = field(default_factory=dict)
    judged: dict[Plan, Judgement] = field(default_factory=dict)
    _fitter: Fitter | None = None
    _taught: WeakKeyDictionary[Kernel, set[Call]] = field(default_factory=WeakKeyDictionary)

    @property
    def fitter(self) -> Fitter:
        """What gaps are fitted and plans judged with."""
        if self._fitter is None:
            self._fitter = self.make_fitter()
        return self._fitter

    def gaps_to_fit(self, plans: Iterable[Plan]) -> list[Gap]:
        """The gaps of plans that can be bridged and are not fitted yet."""
        asked = {gap for plan in plans for gap in gaps_of(plan, self.n_blocks)}
        return sorted(gap for gap in asked - self.fits.keys() if gap.block not in self.refused)

    def fit(self, plans: Iterable[Plan], advance: Advance = nowhere) -> Iterator[Fit]:
        """Fit what is missing for plans, one gap after the other; `gaps_to_fit` counts them."""
        if gaps := self.gaps_to_fit(plans):
            for fit in self.fitter.fit(gaps, advance):
                self.fits[fit.gap] = fit
                yield fit

    @property
    def forms(self) -> dict[Gap, Form]:
        """Of the gaps that are bridged."""
        return {gap: fit.form for gap, fit in self.fits.items() if fit.form is not None}

    def path(self, plan: Plan) -> Path:
        """What a plan computes with its gaps bridged, once they are fitted."""
        return bridged_path(plan, self.n_blocks, self.forms)

    def judge(self, plans: Sequence[Plan]) -> None:
        """See which plans are better with their bridges, on text that none was fitted on."""
        paths = {plan: self.path(plan) for plan in plans if plan not in self.judged}
        cut = {plan: as_cut(plan, self.n_blocks) for plan in paths}
        for gap, fit in self.fits.items():  # judged where nothing else is removed
            if fit.form is not None and paths.get(gap.plan) == self.path(gap.plan):
                self.judged[gap.plan] = Judgement(fit.nats_as_cut, fit.nats)
        changed = (plan for plan in paths if paths[plan] != cut[plan])
        todo = [plan for plan in changed if plan not in self.judged]
        for plan in todo:
            self.teach(self.fitter.kernel, paths[plan])
        nats = self.fitter.nats([*(cut[p] for p in todo), *(paths[p] for p in todo)])
        before, after = nats[: len(todo)], nats[len(todo) :]
        for plan, *both in zip(todo, before, after, strict=True):
            self.judged[plan] = Judgement(*both)

    def helps(self, plan: Plan) -> bool:
        """Whether a judged plan is better with its bridges; never where it has none."""
        return plan in self.judged and self.judged[plan].helps

    def bridges(self, plan: Plan) -> Bridges:
        """Fit and judge the bridges of one plan.

        Raises:
            PlanError: if the model has no such plan.
            NoGainError: if nothing can be bridged in it, or it is better as cut.
        """
        gaps = list(gaps_of(plan.check(self.n_blocks), self.n_blocks))
        for _ in self.fit([plan]):
            pass
        self.judge([plan])
        if not self.helps(plan):
            raise NoGainError(
                f"cannot bridge the gaps of {plan.short}: {self.why_not(plan)}. Prune with "
                "`bridges=None`."
            )
        fits = {gap: self.fits[gap] for gap in gaps if gap in self.forms}
        return Bridges(plan, gaps, fits, self.judged[plan], self.calibration)

    def why_not(self, plan: Plan) -> str:
        """Why a plan that was judged has no bridges, as a clause."""
        title = self.calibration.tuning.corpus.title
        if plan in self.judged:
            found = self.judged[plan]
            return (
                f"{found.nats:.4f} nats per token of {title} with bridges, "
                f"{found.nats_as_cut:.4f} as cut"
            )
        reasons = [
            f"into block {gap.block}, {self.refused[gap.block]}"
            if gap.block in self.refused
            else f"no bridge over {gap} takes down the {self.fits[gap].nats_as_cut:.4f} nats per "
            f"token of {title}"
            for gap in gaps_of(plan, self.n_blocks)
        ]
        return "; ".join(reasons) or "no kept block stands before a removed one"

    def teach(self, kernel: Kernel, path: Path) -> None:
        """Let a kernel know the forms that a path asks for."""
        known = self._taught.setdefault(kernel, set())
        for call in path:
            if call.to is not None and call not in known:
                kernel.learn(call, self.forms[Gap(call.block, call.to)])
                known.add(call)


def bridging_of(
    decoder: Decoder,
    calibration: Calibration,
    kernel: Kernel,
    make_exact: Callable[[], Kernel],
    dtype: torch.dtype,
    batch_size: int | None = None,
) -> Bridging | str:
    """The bridges of a model, none of them fitted yet; or why it can have none, as a clause.

    Args:
        decoder: the whole model, in float32.
        calibration: the texts that they are fitted and judged on.
        kernel: what figures are measured with.
        make_exact: makes one that computes in float32, where `kernel` does not.
        dtype: that a pruned model is saved in.
        batch_size: windows at a time when they are judged; by default what memory allows.
    """
    sockets = find_sockets(decoder, calibration.fitting.tensors(0, 1)[0][:, :LOOK_TOKENS])
    refused = {block: why for block, why in sockets.items() if isinstance(why, str)}
    if len(refused) == decoder.n_blocks:
        return f"into no block of this {decoder.model.config.model_type} model: {refused[0]}"

    def make_fitter() -> Fitter:
        window = calibration.tuning.typical_window()
        return Fitter(
            kernel,
            (lambda: kernel) if kernel.dtype == torch.float32 else make_exact,
            {block: one for block, one in sockets.items() if isinstance(one, Socket)},
            calibration,
            decoder.n_blocks,
            dtype,
            batch_size or choose_batch_size(kernel, decoder.n_blocks, *window),
        )

    return Bridging(make_fitter, refused, decoder.n_blocks, calibration)
