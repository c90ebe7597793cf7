"""A sweep: many plans measured on the same windows, stored as they come.

The order of work: find the model, choose the plans by its config, find the texts; then read the
weights while the texts are cut into windows, open the run folder, walk the window groups that are
not on the disk yet, time the pruned models. What can be refused without the weights is refused
before they are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pruning_kit.errors import CorpusError, RunError, first_line
from pruning_kit.inputs import corpora, models
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.texts import PreparedText, prepare_text, window_sizes
from pruning_kit.inputs.weights import find_weights
from pruning_kit.inputs.windows import even_batch_size
from pruning_kit.kernels import choose_kernel
from pruning_kit.machine import devices, disk, versions
from pruning_kit.machine.devices import available_cores, device_name
from pruning_kit.plans.paths import Path as WalkPath
from pruning_kit.plans.paths import as_cut, count_calls
from pruning_kit.pruning.surgery import parameters_by_plan
from pruning_kit.runs import opening, provenance, store
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.results import LATENCY_FILE, load_run, read_timings, write_samples
from pruning_kit.speed import latency
from pruning_kit.speed.workload import PROMPT, LatencyProtocol, check_protocol
from pruning_kit.sweeps import samples
from pruning_kit.sweeps.observer import Observer
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.walk.batching import choose_batch_size, sums_within_memory
from pruning_kit.walk.estimates import WindowCost, in_words, measure_cost
from pruning_kit.walk.kernel import Kernel
from pruning_kit.walk.measures import NLL

LONG_S = 60.0
MUCH = 1.5  # times as fast, for advice to be worth its line


class Sweep:
    """A prepared sweep whose run folder is open; `measure` does the work that is left.

    Raises:
        PruningKitError: if anything asked for cannot be had; nothing is left behind then.
    """

    def __init__(self, settings: SweepSettings, observer: Observer, ranks: Ranks) -> None:
        settings.check()
        if settings.output is not None and ranks.leads:
            opening.named_folder(settings.output, settings.resume)
        self.settings = settings
        self.observer = observer
        self.ranks = ranks
        self.device = devices.choose_device(settings.device, ranks.local_rank)
        self.dtype = devices.choose_dtype(settings.dtype, self.device)
        source = _find_model(settings, observer)
        inputs = models.load_inputs(source)
        self.plans = settings.choice.resolve(inputs.config.num_hidden_layers)
        find_weights(source.name, source.folder)  # before a text is fetched to no purpose
        found = _find_texts(settings, observer, inputs)
        # While the text is tokenised here, a GPU wakes and weights are read: in float32 on the
        # host, since the kernel makes its own copy where and how it computes.
        with ThreadPoolExecutor() as background:
            background.submit(lambda: torch.empty(1, device=self.device))
            loading = background.submit(
                models.load_model, source, attention=settings.attention, inputs=inputs
            )
            self.texts = _prepare_texts(found, settings, observer, inputs)
            self.loaded = loading.result()
        self.decoder = Decoder(self.loaded.model)
        if settings.timing:
            check_protocol(settings.timing, self.loaded.model, self.device, len(self._prompt_ids))
        if settings.samples:
            self._announce_samples()
        torch.set_num_threads(self._threads())
        self.kernel = self._choose_kernel(self.dtype)
        if self.kernel.note:
            observer.warn(f"Kernel: {self.kernel.name}. {self.kernel.note}.")
        self.run = self._open_run()
        if settings.timing:
            self._refuse_other_timings(settings.timing)

    def measure(self) -> None:
        """Walk every window group that this process takes and that is not on the disk yet."""
        for split, text in self.texts.items():
            todo, n_left = self._groups_to_measure(split)
            self._announce(text, sum(end - first for _, first, end in todo), n_left)
            with self.observer.track(
                f"perplexity, {text.corpus.title}",
                len(self.plans) * sum(end - first for _, first, end in todo),
            ) as advance:
                for group, first, end in todo:
                    self._measure_group(split, group, first, end)
                    advance(len(self.plans) * (end - first))
        self.ranks.wait_for_all("measured")

    def _groups_to_measure(self, split: str) -> tuple[list[tuple[int, int, int]], int]:
        """Groups not on the disk that this process takes, and the count of all such windows.

        A group is (number, first, end).

        Which these are is what the first process saw, lest one that looks later leave a group that
        another counts as its own.
        """
        groups = self.run.info["windows"][split]["groups"]
        left = [g for g in range(len(groups)) if not self.run.has_part(split, g)]
        seen = self.ranks.share(f"left/{split}", json.dumps(left) if self.ranks.leads else None)
        left = json.loads(seen)
        sizes = [groups[group][1] - groups[group][0] for group in left]
        mine = self.ranks.takes(sizes)
        return [(left[piece], *groups[left[piece]]) for piece in mine], sum(sizes)

    def time(self) -> None:
        """Time the really cut models, if asked for and not done yet; only one process does."""
        protocol = self.settings.timing
        if protocol is None or not self.ranks.leads:
            return
        path = self.run.folder / LATENCY_FILE
        if path.exists():
            self.observer.say(f"Already timed: {path} is kept; delete it to time again.")
            return
        whole = tuple(range(self.decoder.n_blocks))
        plans = [plan for plan in self.plans if plan.removed != whole]
        with self.observer.track("latency", total=1) as advance:
            shown = 0.0

            def progress(share: float) -> None:
                nonlocal shown
                done = max(shown, share)
                advance(done - shown)
                shown = done

            timings = latency.measure(
                self._decoder_to_time, plans, self._prompt_ids, protocol, progress=progress
            )
        disk.write_json(path, timings.to_json())

    def _refuse_other_timings(self, protocol: LatencyProtocol) -> None:
        """Refuse a folder whose timings are not those that this sweep would take.

        Raises:
            PruningKitError: if they are of another protocol or machine, or cannot be read.
        """
        stored = read_timings(self.run)
        if stored is None:
            return
        config = self.loaded.model.config
        wanted = latency.binding_facts(
            protocol, len(self._prompt_ids), config, self.device, self.dtype
        )
        difference = latency.first_difference(stored, wanted)
        if difference:
            name, then, now = difference
            raise RunError(
                f"cannot keep the timings in {self.run.folder / LATENCY_FILE}: they were taken "
                f"with {name} {then}, this run asks for {now}. Delete the file to time again, or "
                "add --no-speed."
            )

    def sample(self) -> None:
        """Keep samples, if asked for: of the whole model and the best plan of each size."""
        if not self.settings.samples or not self.ranks.leads:
            return
        chosen_on = "calibration" if "calibration" in self.texts else "test"
        new_tokens = self._count_new_tokens()
        texts = {}
        for plan in samples.best_of_each_size(load_run(self.run.folder).rows(chosen_on)):
            try:
                ids = samples.write_on(self._decoder_to_time, plan, self._prompt_ids, new_tokens)
            except RuntimeError as error:
                self.observer.warn(f"No sample of plan {plan.short}: {first_line(error)}.")
            else:
                texts[plan] = self.loaded.tokenizer.decode(ids, skip_special_tokens=True)
        write_samples(self.run.folder, PROMPT, new_tokens, texts)

    def _count_new_tokens(self) -> int:
        return samples.count_new_tokens(len(self._prompt_ids), self.loaded.context_limit)

    def _announce_samples(self) -> None:
        """Refuse, or say that they are shorter, before any work."""
        new_tokens = self._count_new_tokens()
        if new_tokens < samples.NEW_TOKENS:
            self.observer.warn(
                f"Samples have {new_tokens} new tokens instead of {samples.NEW_TOKENS}: the "
                f"model's context is {self.loaded.context_limit}."
            )

    @cached_property
    def _prompt_ids(self) -> list[int]:
        """Token ids of the prompt that is timed end to end."""
        return list(self.loaded.tokenizer(PROMPT)["input_ids"])

    @cached_property
    def _decoder_to_time(self) -> Decoder:
        """The model on the device and in the format of the run, as its user would run it."""
        if self.device.type == "cpu" and self.dtype == torch.float32:
            return self.decoder
        settings = self.settings
        source = self.loaded.source
        loaded = models.load_model(source, self.device, self.dtype, settings.attention)
        return Decoder(loaded.model)

    def _measure_group(self, split: str, group: int, first: int, end: int) -> None:
        """Sum the NLL of a window group; what overflows in 16 bits is computed in float32."""
        batch = self.texts[split].tensors(first, end)
        sums, micro_batch = sums_within_memory(self.kernel, self._paths, *batch)
        facts = {"kernel": self.kernel.name, "micro_batch": str(micro_batch)}
        if not sums[NLL.name].isfinite().all() and self.kernel.dtype != torch.float32:
            sums, micro_batch = sums_within_memory(self._float32_kernel, self._paths, *batch)
            facts = {"kernel": self._float32_kernel.name, "micro_batch": str(micro_batch)}
            facts["recomputed"] = "float32"
        self.run.write_part(split, group, sums[NLL.name].numpy(), facts)

    @cached_property
    def _paths(self) -> list[WalkPath]:
        return [as_cut(plan, self.decoder.n_blocks) for plan in self.plans]

    @cached_property
    def _float32_kernel(self) -> Kernel:
        """For windows that overflow in a shorter format."""
        self.observer.warn(
            "A forward overflowed: its windows are computed again in float32, which is recorded."
        )
        return self._choose_kernel(torch.float32)

    def _choose_kernel(self, dtype: torch.dtype) -> Kernel:
        tokens_BT, _, _ = self.texts["test"].tensors(0, 1)
        return choose_kernel(self.decoder, tokens_BT, dtype, self.device)

    def _cost_per_window(self, text: PreparedText) -> WindowCost:
        return measure_cost(self.kernel, *text.typical_window())

    def _announce(self, text: PreparedText, n_windows: int, every: int) -> None:
        """Say how long this process's share will take, if long, and what would make it shorter.

        Args:
            text: the text.
            n_windows: windows of this process.
            every: windows of all processes.
        """
        if not n_windows or not self.ranks.leads:
            return
        calls = count_calls(self._paths)
        per_window = self._cost_per_window(text).seconds(1, calls, len(self.plans))
        if n_windows * per_window > LONG_S:
            shared = f" shared by {self.ranks.size} processes" * (self.ranks.size > 1)
            shorter = [] if self.settings.resume else self._shorter(n_windows, per_window)
            self.observer.say(
                f"{len(self.plans):,} plan{'s' * (len(self.plans) > 1)} on {every:,} "
                f"window{'s' * (every > 1)}{shared} will take about "
                f"{in_words(n_windows * per_window)}."
                + (f" Shorter: {', or '.join(shorter)}." if shorter else "")
            )

    def _shorter(self, n_windows: int, per_window_s: float) -> list[str]:
        """Options that would make a new run much shorter, and how long or large it would be."""
        found = []
        fewer = max(1, int(LONG_S / per_window_s))
        if fewer <= n_windows / MUCH:
            took = in_words(fewer * per_window_s)
            found.append(f"--max-windows {fewer * self.ranks.size} (about {took})")
        at_most = int(len(self.plans) / MUCH)
        return found + self.settings.choice.narrower(self.decoder.n_blocks, at_most)

    # --- the run folder ----------------------------------------------------------------------

    def _open_run(self) -> store.RunFolder:
        """Open the folder to go on with, or a new one; all processes work in the same."""
        identity = self._identity()
        first = str(self._find_or_make_folder(identity)) if self.ranks.leads else None
        run = store.RunFolder.open(Path(self.ranks.share("folder", first)))
        asked = {
            "kernel": self.kernel.name,
            "batch_size": self.settings.batch_size,
            "threads": self.settings.threads,
        }
        opening.refuse_to_mix(
            run, identity, {name: value for name, value in asked.items() if value is not None}
        )
        torch.set_num_threads(run.info["numerics"]["threads"])
        return run

    def _find_or_make_folder(self, identity: Mapping[str, Any]) -> Path:
        """The folder to go on with, or a new one; its `run.json` is there."""
        folder = self._find_folder(identity)
        if folder and (folder / store.RUN_FILE).exists():
            run = store.RunFolder.open(folder)
        else:
            info = self._info(identity)
            folder = folder or opening.new_folder(self._new_place(), self._run_name())
            run = store.RunFolder.create(folder, info)
        run.remove_left_overs()
        return run.folder

    def _find_folder(self, identity: Mapping[str, Any]) -> Path | None:
        """The folder that was named, or that of a stopped run of the same identity."""
        settings = self.settings
        if settings.output is not None:
            return opening.named_folder(settings.output, settings.resume)
        with suppress(RunError):  # who has no home has nothing there to tidy
            opening.tidy(opening.cache_folder(), opening.RESULTS)
        if not settings.resume:
            return None
        bases = (opening.RESULTS, opening.cache_folder())
        found = opening.find_run(bases, identity)
        if found is None:
            self.observer.say(f"Nothing to resume under {bases[0]} or {bases[1]}: a new run.")
        elif settings.save_results and found.parent == opening.cache_folder():
            found = opening.move_under(found, opening.RESULTS)
        if found:
            self.observer.say(f"Going on with {found}.")
        return found

    def _new_place(self) -> Path:
        return opening.place_for(self.settings.save_results)

    def _run_name(self) -> str:
        model = Path(self.loaded.source.name).resolve().name
        return f"{model}-{self.settings.choice.mode or 'plans'}"

    def _identity(self) -> dict[str, Any]:
        """The facts in which two runs must agree for their sums to be mixed."""
        context, stride = window_sizes(self.loaded, self.settings.context, self.settings.stride)
        return {
            "context": context,
            "stride": stride,
            "bos": self.texts["test"].bos,
            **provenance.identity(self.loaded, self.texts, self.plans),
            "dtype": devices.dtype_name(self.dtype),
            "device": self.device.type,
            "device_name": device_name(self.device),
        }

    def _info(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Everything needed to repeat the run, for `run.json`."""
        batch_size = self._choose_batch_size()
        return {
            "command": self.settings.command,
            "created": versions.now(),
            "identity": dict(identity),
            "model": provenance.describe_model(self.loaded, self.decoder.n_blocks),
            "texts": {split: provenance.describe_text(t) for split, t in self.texts.items()},
            "protocol": {
                "context": identity["context"],
                "stride": identity["stride"],
                "bos": identity["bos"],
                "max_windows": self.settings.max_windows,
            },
            "numerics": {
                "dtype": devices.dtype_name(self.kernel.dtype),
                "device": identity["device"],
                "device_name": identity["device_name"],
                "kernel": self.kernel.name,
                "note": self.kernel.note or None,
                "attention": identity["attention"],
                "batch_size": batch_size,
                "threads": torch.get_num_threads(),
            },
            "choice": self.settings.choice.describe(),
            "plans": [str(plan) for plan in self.plans],
            "parameters": {
                str(plan): count
                for plan, count in parameters_by_plan(self.decoder, self.plans).items()
            },
            "windows": {
                split: provenance.describe_windows(text, batch_size)
                for split, text in self.texts.items()
            },
            "versions": versions.versions(),
            "git_commit": versions.git_commit(),
        }

    def _choose_batch_size(self) -> int:
        """Windows at a time: what was asked for, or what memory allows, the same for each rank."""
        if self.settings.batch_size:
            return self.settings.batch_size
        text = self.texts["test"]
        largest = choose_batch_size(
            self.kernel, max(plan.size for plan in self.plans), *text.typical_window()
        )
        shapes = [window.shape for window in text.windows]
        n_alike = shapes.count(shapes[len(shapes) // 2])  # the first and the last go alone
        return even_batch_size(n_alike, largest, self.ranks.size)

    def _threads(self) -> int:
        """Threads of each process; torchrun's default of one would leave cores idle."""
        if self.settings.threads:
            return self.settings.threads
        if self.ranks.size == 1:
            return torch.get_num_threads()
        return max(1, available_cores() // self.ranks.local_size)


def _find_model(settings: SweepSettings, observer: Observer) -> models.ModelSource:
    """The model asked for, and a warning where another one stands in."""
    source = models.find_model(settings.model)
    if source.note:
        observer.warn(
            f"{source.note}. This run uses the embedded demo model (a small GPT-2 of 6 blocks) "
            "and NOT distilgpt2."
        )
    return source


def _find_texts(
    settings: SweepSettings, observer: Observer, inputs: models.ModelInputs
) -> dict[str, corpora.Corpus]:
    """The text that figures are reported on and, if asked for, the one to choose plans on."""
    window_sizes(inputs, settings.context, settings.stride)  # refused before a text is read
    corpus = corpora.find_corpus(settings.dataset, inputs.source.name, settings.hub_text)
    if corpus.note:
        observer.warn(f"{corpus.note} This run scores the embedded text ({corpus.title}).")
    chosen = {"test": corpus}
    if settings.select_on:
        chosen["calibration"] = corpora.selection_corpus(settings.select_on, corpus)
        if chosen["calibration"].sha256 == corpus.sha256:
            raise CorpusError(
                f"cannot choose plans on {settings.select_on!r}: it is the text that figures are "
                "reported on. Give --select-on another text."
            )
    return chosen


def _prepare_texts(
    chosen: Mapping[str, corpora.Corpus],
    settings: SweepSettings,
    observer: Observer,
    inputs: models.ModelInputs,
) -> dict[str, PreparedText]:
    """The texts as tokens, cut into windows."""
    sizes = (settings.context, settings.stride, settings.max_windows)
    prepared = {
        split: prepare_text(text, inputs, *sizes, settings.bos) for split, text in chosen.items()
    }
    for text in prepared.values():
        if text.at_once:
            observer.say(
                f"{text.corpus.title}: much of it was tokenised at once, since this tokenizer does "
                "not give shorter pieces the same tokens. That takes memory: about 150 bytes for "
                "each byte of text."
            )
    return prepared
