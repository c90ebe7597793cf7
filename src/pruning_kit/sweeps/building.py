"""Building a workbench in steps.

`find` decides what model and texts are meant, so that whatever can be refused without the weights
is refused before they are read; `prepare` reads them while the texts are cut into windows, and
chooses the kernel. Neither writes to the disk nor leaves a setting of the process changed.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from pruning_kit.inputs import models
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.weights import find_weights
from pruning_kit.kernels import choose_kernel
from pruning_kit.machine.devices import choose_device, choose_dtype, using_threads
from pruning_kit.sweeps.observer import Observer, SilentObserver
from pruning_kit.sweeps.settings import WorkbenchSettings
from pruning_kit.sweeps.texts import FoundTexts, find_texts, prepare_texts
from pruning_kit.sweeps.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Found:
    """What is meant by the settings, before any weight is read."""

    settings: WorkbenchSettings
    inputs: models.ModelInputs
    texts: FoundTexts
    device: torch.device
    dtype: torch.dtype


def open_workbench(
    model: str | None = None, dataset: str | None = None, **settings: Any
) -> Workbench:
    """A workbench on a model and texts, ready to measure.

    Args:
        model: a Hub id, a folder, or `demo`; by default distilgpt2, or the demo model without it.
        dataset: the text; by default WikiText-2's test split, or the demo model's own.
        settings: further fields of `WorkbenchSettings`, and `observer`.

    Raises:
        PruningKitError: if anything asked for cannot be had.
    """
    observer = settings.pop("observer", SilentObserver())
    asked = WorkbenchSettings(model=model, dataset=dataset, **settings)
    return prepare(find(asked, observer), observer)


def find(
    settings: WorkbenchSettings,
    observer: Observer,
    check: Callable[[int], object] = lambda n_blocks: None,
    process: int = 0,
) -> Found:
    """Decide what model and texts are meant; no weight is read.

    Args:
        settings: what is asked for.
        observer: is warned where the demo model or its text stands in.
        check: called with the number of blocks, to refuse what does not fit them.
        process: number of this process on the machine; each takes a GPU of its own.

    Raises:
        PruningKitError: if anything asked for cannot be had.
    """
    settings.check()
    device = choose_device(settings.device, process)
    dtype = choose_dtype(settings.dtype, device)
    source = models.find_model(settings.model)
    if source.note:
        observer.warn(
            f"{source.note}. This run uses the embedded demo model (a small GPT-2 of 6 blocks) "
            "and NOT distilgpt2."
        )
    inputs = models.load_inputs(source)
    check(inputs.config.num_hidden_layers)
    find_weights(source.name, source.folder)  # before a text is fetched to no purpose
    return Found(settings, inputs, find_texts(settings, observer, inputs), device, dtype)


def prepare(
    found: Found,
    observer: Observer,
    threads: int | None = None,
    check: Callable[[models.LoadedModel], object] = lambda loaded: None,
) -> Workbench:
    """Read the weights while the texts are cut into windows, then choose the kernel.

    Args:
        found: what was decided.
        observer: is told of a slow tokenizer and of refused kernels.
        threads: of the CPU; by default those that PyTorch is set to.
        check: called with the loaded model before a kernel is tried, to refuse what it cannot do.

    Raises:
        PruningKitError: if the model or a text cannot be read.
    """
    settings = found.settings
    # In float32 on the host, since the kernel makes its own copy where and how it computes; a GPU
    # wakes meanwhile.
    with ThreadPoolExecutor() as background:
        background.submit(lambda: torch.empty(1, device=found.device))
        loading = background.submit(
            models.load_model,
            found.inputs.source,
            attention=settings.attention,
            inputs=found.inputs,
        )
        texts = prepare_texts(settings, found.texts.by_role, found.inputs, observer)
        loaded = loading.result()
    check(loaded)
    decoder = Decoder(loaded.model)
    threads = settings.threads or threads or torch.get_num_threads()
    probe, _, _ = texts["reported"].tensors(0, 1)
    with using_threads(threads):
        kernel = choose_kernel(decoder, probe, found.dtype, found.device)
    if kernel.note:
        observer.warn(f"Kernel: {kernel.name}. {kernel.note}.")
    return Workbench(
        settings,
        loaded,
        decoder,
        texts,
        kernel,
        found.device,
        found.dtype,
        threads,
        observer,
        found.texts,
    )
