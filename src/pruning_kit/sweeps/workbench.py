"""The workbench: a model, its texts and a kernel, ready to measure variants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from pruning_kit.errors import CorpusError, PlanError
from pruning_kit.inputs import models
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.calibration import prepare_calibration, prepare_judging
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.inputs.windows import neighbouring, window_groups
from pruning_kit.kernels import choose_kernel
from pruning_kit.machine.devices import using_threads
from pruning_kit.plans.paths import as_cut, count_calls
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.pruning.bridges.bridging import Bridging, bridging_of
from pruning_kit.pruning.bridges.fitting import Fit
from pruning_kit.pruning.distillation.distilled import Keeping, Learning
from pruning_kit.pruning.distillation.training import Together
from pruning_kit.pruning.material import Material
from pruning_kit.pruning.recovered import Recovered
from pruning_kit.pruning.recovery import check, computation_of, has_own_weights, make
from pruning_kit.runs.facts import Role
from pruning_kit.runs.ranks import Ranks
from pruning_kit.speed.workload import PROMPT
from pruning_kit.sweeps.learning import check_learning, learning_of
from pruning_kit.sweeps.measured import Measured
from pruning_kit.sweeps.observer import Observer
from pruning_kit.sweeps.settings import WorkbenchSettings
from pruning_kit.sweeps.texts import FoundTexts, prepare_texts
from pruning_kit.sweeps.together import Distributed
from pruning_kit.walk.batching import choose_batch_size, sums_within_memory
from pruning_kit.walk.estimates import WindowCost, measure_cost
from pruning_kit.walk.kernel import Kernel
from pruning_kit.walk.measures import NLL, Measure

TIMED_WINDOWS = 4
"""At once, for an estimate: one alone takes longer than its share."""


@dataclass(frozen=True, eq=False)
class Workbench:
    """A model, its texts and a kernel, ready to measure variants."""

    settings: WorkbenchSettings
    loaded: models.LoadedModel
    decoder: Decoder
    texts: Mapping[Role, PreparedText]
    kernel: Kernel
    device: torch.device
    dtype: torch.dtype
    """What was asked for; the kernel's is another where that cannot be had."""
    threads: int
    """Of the CPU, while something is computed."""
    observer: Observer
    found_texts: FoundTexts
    shelf: MutableMapping[Variant, Recovered] = field(default_factory=dict)
    """Recovered models that were made: here, or where a run keeps them."""
    keeping: Keeping | None = None
    """Where trainings are kept while they last; None: nowhere."""
    together: Together | None = None
    """The processes that train together; None: this one alone."""

    @property
    def n_blocks(self) -> int:
        """Blocks of the whole model."""
        return self.decoder.n_blocks

    def in_run(
        self,
        threads: int,
        shelf: MutableMapping[Variant, Recovered],
        keeping: Keeping,
        ranks: Ranks,
    ) -> Workbench:
        """The same in a run, which says how many threads, keeps what is made, and is shared."""
        together = Distributed(ranks, self.device) if ranks.size > 1 else None
        return replace(self, threads=threads, shelf=shelf, keeping=keeping, together=together)

    def with_windows(self, max_windows: int) -> Workbench:
        """The same with the first windows of each text alone; nothing that was fitted is in it."""
        settings = replace(self.settings, max_windows=max_windows)
        texts = prepare_texts(settings, self.found_texts.by_role, self.loaded, self.observer)
        return replace(self, settings=settings, texts=texts)

    @property
    def chosen_on(self) -> PreparedText:
        """The text that plans are chosen on."""
        return self.texts.get("selection", self.texts["reported"])

    def measure(
        self,
        variants: Sequence[Variant | str],
        role: Role = "reported",
        windows: range | None = None,
        measures: Sequence[Measure] = (NLL,),
        batch_size: int | None = None,
    ) -> Measured:
        """Measure variants on windows of a text, all of them in one walk.

        Args:
            variants: variants, or their text form, such as `1+3`.
            role: which text: `reported`, or, where there are such, `selection`, `also-1`, …
            windows: neighbouring windows; by default all of the text.
            measures: what to add up for each scored token.
            batch_size: windows at a time; by default what memory allows.

        Raises:
            PlanError: if there is no variant, one cannot be read, or no model has it.
            CorpusError: if the workbench has no such text.
            WindowError: if the text has no such windows.
            DeviceError: if the memory does not hold a single window.
        """
        chosen = [Variant.parse(v) if isinstance(v, str) else v for v in variants]
        if not chosen:
            raise PlanError("cannot measure without a variant: name at least one, such as none.")
        text = self._text(role)
        within = neighbouring(windows, len(text.windows))
        self.fit(variant.plan for variant in chosen if variant.recovery == BRIDGED)
        self.recover(chosen)
        size = batch_size or self.choose_batch_size(max(len(v.plan.removed) for v in chosen))
        pieces = [
            self._measure_group(chosen, text, within[first], within[end - 1] + 1, measures)
            for first, end in window_groups(text.windows[within.start : within.stop], size)
        ]
        return Measured.joined(pieces)

    def _text(self, role: Role) -> PreparedText:
        if role not in self.texts:
            raise CorpusError(
                f"cannot measure on the text {role!r}: this workbench has "
                f"{', '.join(self.texts)}. Open it with select_on or also_on for others."
            )
        return self.texts[role]

    def _measure_group(
        self,
        variants: Sequence[Variant],
        text: PreparedText,
        first: int,
        end: int,
        measures: Sequence[Measure],
    ) -> Measured:
        """Sums of windows of one shape; what overflows in 16 bits is computed in float32."""
        inputs = text.tensors(first, end)
        with using_threads(self.threads):
            found = self._sums(self.material, variants, inputs, measures)
            if not found.is_finite and self.kernel.dtype != torch.float32:
                found = self._sums(self._float32_material, variants, inputs, measures)
                found.facts["recomputed"] = "float32"
        return found

    def _sums(
        self,
        material: Material,
        variants: Sequence[Variant],
        inputs: tuple[Tensor, Tensor, int],
        measures: Sequence[Measure],
    ) -> Measured:
        """The sums of every variant: all that the whole model's kernel computes in one walk."""
        asked = list(dict.fromkeys(variants))
        together = [variant for variant in asked if not has_own_weights(variant)]
        alone = [[variant] for variant in asked if has_own_weights(variant)]
        pieces = []
        for group in filter(None, [together, *alone]):
            computed = [computation_of(variant, material) for variant in group]
            kernel, paths = computed[0].kernel, [one.path for one in computed]
            sums, at_a_time = sums_within_memory(
                kernel,
                paths,
                *inputs,
                measures=measures,
                whole=as_cut(Plan(), self.n_blocks),
                whole_kernel=material.kernel,
            )
            facts = {"kernel": kernel.name, "micro_batch": str(at_a_time)}
            pieces.append(Measured.of(group, sums, inputs[1], facts))
        return Measured.of_all(pieces, variants)

    def kernel_for(self, decoder: Decoder, dtype: torch.dtype | None = None) -> Kernel:
        """The fastest kernel for a model of this one's family, on the device of the workbench."""
        tokens_BT, _, _ = self.texts["reported"].tensors(0, 1)
        return choose_kernel(decoder, tokens_BT, dtype or self.dtype, self.device)

    @cached_property
    def material(self) -> Material:
        """What recoveries are made of."""
        return self._material_for(self.kernel, self.kernel_for)

    def _material_for(self, kernel: Kernel, kernel_for: Callable[[Decoder], Kernel]) -> Material:
        return Material(
            self.decoder,
            kernel,
            kernel_for,
            self.bridging,
            self.loaded.saved_dtype,
            self.shelf,
            self.observer.track,
            lambda: self.judging,
            lambda: self.learning,
        )

    @cached_property
    def _float32_material(self) -> Material:
        """For windows that overflow in a shorter format."""
        self.observer.warn(
            "A forward overflowed: its windows are computed again in float32, which is recorded."
        )

        def in_float32(decoder: Decoder) -> Kernel:
            return self.kernel_for(decoder, torch.float32)

        return self._material_for(in_float32(self.decoder), in_float32)

    @cached_property
    def bridging(self) -> Bridging | str:
        """The bridges of the model, none of them fitted yet; or why there are none."""
        parts = self.found_texts.parts
        if parts is None:
            return self.found_texts.unbridged or ""
        settings = self.settings
        sizes = (settings.context, settings.stride, settings.bos)
        return bridging_of(
            self.decoder,
            prepare_calibration(parts, self.loaded, *sizes),
            self.kernel,
            lambda: self.kernel_for(self.decoder, torch.float32),
            self.loaded.saved_dtype,
            self.settings.batch_size,
        )

    @cached_property
    def judging(self) -> PreparedText:
        """Of the calibration text what nothing is fitted on, to judge a recovery as a whole."""
        parts, settings = self.found_texts.parts, self.settings
        assert parts is not None, "what is not calibrated is not judged"
        sizes = (settings.context, settings.stride, settings.bos)
        return prepare_judging(parts, self.loaded, *sizes)

    def check_learning(self) -> None:
        """Refuse what cannot be distilled.

        Raises:
            PlanError: if there is no calibration text, or too little text.
            ArchitectureError: if the model's logits are not what its output embedding gives.
        """
        check_learning(self.settings, self.loaded, self.found_texts, lambda: self.judging)

    @cached_property
    def learning(self) -> Learning:
        """What distillations learn from.

        Raises:
            PlanError, ArchitectureError: as `check_learning`.
        """
        return learning_of(
            self.settings,
            self.loaded,
            self.decoder,
            self.found_texts,
            lambda: self.judging,
            self.device,
            self.observer.track,
            self.keeping,
            self.together,
        )

    def fit(self, plans: Iterable[Plan], keep: Callable[[Fit], object] = lambda fit: None) -> None:
        """Fit at once the gaps of plans that are not fitted yet, which `measure` does too.

        Args:
            plans: whose gaps are to be bridged.
            keep: is given each gap as soon as it is fitted.
        """
        wanted = list(plans)
        if not wanted or isinstance(self.bridging, str):
            return
        if gaps := self.bridging.gaps_to_fit(wanted):
            track = self.observer.track("bridges, gap by gap", len(gaps))
            with using_threads(self.threads), track as advance:
                for fit in self.bridging.fit(wanted, advance):
                    keep(fit)

    def recover(self, variants: Iterable[Variant]) -> None:
        """Make at once the models of variants with weights of their own, which `measure` does too.

        Raises:
            PlanError: if one cannot be made.
            NoGainError: if one is no better than what it would be made from.
        """
        for variant in variants:
            check(variant, self.n_blocks)
            if has_own_weights(variant):
                with using_threads(self.threads):
                    make(variant, self.material)

    def count_calls(self, variants: Iterable[Variant]) -> int:
        """Calls of blocks that measuring some variants takes, once they are fitted."""
        asked = list(variants)
        shared = [computation_of(v, self.material).path for v in asked if not has_own_weights(v)]
        kept = [self.n_blocks - v.plan.size for v in asked if has_own_weights(v)]
        return count_calls(shared) + sum(kept) + self.n_blocks * len(kept)  # the whole beside each

    def choose_batch_size(self, most_removed: int) -> int:
        """Windows at a time: what was asked for, or what memory allows.

        Args:
            most_removed: blocks that a variant lacks at most.
        """
        if self.settings.batch_size:
            return self.settings.batch_size
        window = self.texts["reported"].typical_window()
        with using_threads(self.threads):
            # the whole model's states, which all are compared with, live beside the walk's own
            return choose_batch_size(self.kernel, most_removed + self.n_blocks, *window)

    def cost_per_window(self, role: Role, windows: range) -> WindowCost:
        """What each of some windows of one shape costs, timed on all of them at once."""
        inputs = self.texts[role].tensors(windows.start, windows.stop)
        with using_threads(self.threads):
            return measure_cost(self.kernel, *inputs)

    def cost_per_usual_window(self) -> WindowCost:
        """Of the reported text, by some that follow the first, which may have another shape."""
        n_windows = len(self.texts["reported"].windows)
        first = min(1, n_windows - 1)
        end = max(first + 1, min(first + TIMED_WINDOWS, n_windows - 1))
        return self.cost_per_window("reported", range(first, end))

    @cached_property
    def prompt_ids(self) -> list[int]:
        """Token ids of the prompt that is timed end to end and that samples go on from."""
        return list(self.loaded.tokenizer(PROMPT)["input_ids"])

    @cached_property
    def decoder_as_used(self) -> Decoder:
        """The model on the device and in the format of the workbench, as its user would run it."""
        if self.device.type == "cpu" and self.dtype == torch.float32:
            return self.decoder
        source, attention = self.loaded.source, self.settings.attention
        return Decoder(models.load_model(source, self.device, self.dtype, attention).model)
