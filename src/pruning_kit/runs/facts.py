"""Facts: what a run folder says about itself, as types that check themselves when they are read.

What is missing or of another form is a `machine.typed.MisfitError`, which names it by its path.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

from msgspec import Meta, Struct

from pruning_kit.errors import PlanError
from pruning_kit.machine.typed import Blocks, Count, MisfitError, Number, Place
from pruning_kit.plans.variant import Variant

SCHEMA = 2
"""Versions: 1, plans in run.json and one list of parts; 2, rounds of variants, several measures."""

Role = Annotated[str, Meta(pattern=r"^(reported|selection|also-[1-9][0-9]{0,3})\Z")]
"""Of a text: figures are reported on one, plans may be chosen on another, and all is measured also
on further ones, `also-1`, `also-2`, …"""
SPLITS = {"reported": "test", "selection": "calibration"}
"""The names of roles in the column `split` of results.csv, where they are others."""
NLL = "nll"
"""The measure that every round takes, in nats."""

NO_TEXT = "no text to fit bridges on belongs to {}"
"""Why no gap is bridged, where another choice of texts would mend it."""

Group = tuple[Place, Place]
"""Windows that are computed together: the first, and the one after the last."""


class ModelFacts(Struct, frozen=True, kw_only=True):
    """The whole model."""

    name: str
    revision: str | None
    weights_sha256: str
    model_type: str
    n_blocks: Blocks
    stored_dtype: str
    context_limit: int | None
    note: str | None
    """Why it stands in for the one that was asked for."""


class TextFacts(Struct, frozen=True, kw_only=True):
    """A text that was scored."""

    name: str
    title: str
    sha256: str
    n_tokens: Count | None
    n_bytes: Count
    """Bytes of the scored part, in UTF-8."""
    n_windows_in_all: Count | None
    part: str | None
    """Which part was scored, in words; None for the whole."""
    note: str | None
    """Why it stands in for the one that was asked for."""


class WindowFacts(Struct, frozen=True, kw_only=True):
    """The windows of a text: which are computed together, and how many tokens each scores."""

    groups: tuple[Group, ...]
    targets: tuple[Count, ...]

    def __post_init__(self) -> None:
        ends = [0, *(end for _, end in self.groups)]
        follow = self.groups == tuple(pairwise(ends)) and ends == sorted(set(ends))
        if not follow or ends[-1] != len(self.targets) or not self.groups:
            raise MisfitError("", f"its groups do not cover its {len(self.targets)} windows")


class ProtocolFacts(Struct, frozen=True, kw_only=True):
    """How texts are cut into windows."""

    context: Count
    stride: Count
    bos: int | None
    """Token before each window."""
    max_windows: Count | None


class NumericsFacts(Struct, frozen=True, kw_only=True):
    """What was computed with; a resumed run keeps to it."""

    dtype: str
    device: str
    device_name: str
    kernel: str
    note: str | None
    """Why it is not the fastest kernel."""
    attention: str
    batch_size: Count
    threads: Count


class ProposalFacts(Struct, frozen=True, kw_only=True):
    """Who asked for variants."""

    text: str
    """The proposer's text form."""
    mode: str | None
    seed: Annotated[int, Meta(ge=-(10**18), le=10**18)]
    evaluations: Count | None = None
    """What a bound in minutes was turned into before the start."""
    sizes: dict[str, tuple[Blocks, ...]] = {}
    """By its text form, what the limit of a search on the model was turned into."""


class RunFacts(Struct, frozen=True, kw_only=True):
    """Everything needed to repeat a run, written once, before its first round."""

    schema: int = SCHEMA
    command: str
    created: str
    identity: dict[str, Any]
    """What has to agree for sums to be mixed."""
    model: ModelFacts
    texts: dict[Role, TextFacts]
    protocol: ProtocolFacts
    numerics: NumericsFacts
    proposal: ProposalFacts
    windows: dict[Role, WindowFacts]
    versions: dict[str, str]
    git_commit: str | None
    unbridged: str | None
    """Why no gap is bridged, as a clause; None where some can be."""

    def __post_init__(self) -> None:
        for role in ("reported", *self.windows, *self.texts):
            for name in ("texts", "windows"):
                if role not in getattr(self, name):
                    raise MisfitError(f"{name}.{role}")
        try:
            shlex.split(self.command)
        except ValueError:  # a quotation that does not end
            raise MisfitError("command") from None

    @property
    def choosing_role(self) -> Role:
        """The text that plans are chosen on."""
        return "selection" if "selection" in self.texts else "reported"

    @property
    def further_roles(self) -> tuple[Role, ...]:
        """The texts that all was measured on too, in the order in which they were named."""
        return tuple(role for role in self.texts if role not in SPLITS)


def lacks_text(facts: RunFacts) -> bool:
    """Whether no gap is bridged because nobody said what to fit bridges on."""
    return facts.unbridged == NO_TEXT.format(facts.texts["reported"].title)


class VariantFacts(Struct, frozen=True, kw_only=True, dict=True, omit_defaults=True):
    """A variant, as `str` writes it, and the parameters of its model, tied ones counted once."""

    variant: str
    parameters: Count
    proposed_by: Annotated[str, Meta(pattern=r"^[a-z]+\Z")] | None = None
    """The search that a screened candidate comes from."""

    def __post_init__(self) -> None:
        try:
            written = str(self.parsed)
        except PlanError:
            raise MisfitError("variant") from None
        if written != self.variant:
            raise MisfitError("variant", f"{written!r} is written {self.variant!r:.40}")

    @cached_property
    def parsed(self) -> Variant:
        """The variant itself, which a run of thousands reads again and again."""
        return Variant.parse(self.variant)


class RoundFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one round measures: variants, by some measures, on some of the run's texts.

    Those of a screening are candidates, measured on some windows of one text, and no rows.
    """

    variants: tuple[VariantFacts, ...]
    measures: tuple[str, ...]
    texts: tuple[Role, ...]
    windows: tuple[Group, ...] | None = None
    """Runs of neighbouring windows that a screening measures; None: all, and no screening."""

    def __post_init__(self) -> None:
        lists: dict[str, Sequence[object]] = {
            "variants": self.names,
            "measures": self.measures,
            "texts": self.texts,
        }
        if self.windows is not None:
            lists["windows"] = _places(self.windows)
        for name, values in lists.items():
            if not values or len(set(values)) != len(values):
                raise MisfitError(name, "it is empty, or holds something twice")
        if NLL not in self.measures:
            raise MisfitError("measures", f"it lacks {NLL!r}")

    @property
    def is_screening(self) -> bool:
        """Whether its variants are candidates of a search and no rows."""
        return self.windows is not None

    @property
    def places(self) -> tuple[int, ...]:
        """The numbers of the windows that a screening measures, in its order."""
        return _places(self.windows or ())

    def check(self, run: RunFacts) -> None:
        """See that a run has such variants, texts and windows.

        Raises:
            MisfitError: naming what it has not.
        """
        for number, facts in enumerate(self.variants):
            last = facts.parsed.plan.units[-1:]
            if last and last[0].block >= run.model.n_blocks:
                raise MisfitError(
                    f"variants[{number}]",
                    f"a model of {run.model.n_blocks} blocks has no variant {facts.variant!r:.40}",
                )
        if strange := set(self.texts) - set(run.texts):
            raise MisfitError("texts", f"the run has no text {min(strange)!r}")
        if self.is_screening and self.texts != (run.choosing_role,):
            raise MisfitError("texts", f"candidates are screened on {run.choosing_role!r} alone")
        n_windows = len(run.windows[run.choosing_role].targets)
        if any(place >= n_windows for place in self.places):
            raise MisfitError("windows", f"the text has {n_windows}")

    def repeats(self, other: RoundFacts) -> bool:
        """Whether variants of both would be measured twice; a row may have been a candidate."""
        if self.is_screening or other.is_screening:
            return bool(set(self.places) & set(other.places))
        return bool(set(self.texts) & set(other.texts))

    @property
    def names(self) -> tuple[str, ...]:
        """The variants as text, in the order of the stored rows."""
        return tuple(facts.variant for facts in self.variants)


def _places(groups: Sequence[Group]) -> tuple[int, ...]:
    return tuple(place for group in groups for place in range(*group))


class AskedFacts(Struct, frozen=True, kw_only=True):
    """What one of the proposers of a run asked for, see `asked.Asked`."""

    proposer: str
    variants: tuple[str, ...]
    evaluations: Number


class FinishedFacts(Struct, frozen=True, kw_only=True):
    """The mark of a run whose proposer has nothing more to ask."""

    rounds: Count
    asked: tuple[AskedFacts, ...] = ()
    """Of each proposer, but for what was named by hand."""


class Samples(Struct, frozen=True, kw_only=True):
    """What some variants wrote on from a prompt, the prompt included."""

    prompt: str
    new_tokens: Count
    texts: dict[str, str]
    """By variant, as `str` writes it."""

    def __post_init__(self) -> None:
        for text in self.texts:
            try:
                Variant.parse(text)
            except PlanError:
                raise MisfitError("texts") from None

    @classmethod
    def of(cls, prompt: str, new_tokens: int, texts: Mapping[Variant, str]) -> Samples:
        """Samples by variant; `by_variant` gives them back."""
        named = {str(variant): text for variant, text in texts.items()}
        return cls(prompt=prompt, new_tokens=new_tokens, texts=named)

    @property
    def by_variant(self) -> dict[Variant, str]:
        """The texts by variant, the whole model's first."""
        return dict(sorted((Variant.parse(name), text) for name, text in self.texts.items()))
