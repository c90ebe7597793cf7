"""Typed values: whatever JSON gives, it fits or the first misfit is named by its path."""

import copy
import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from pruning_kit.machine.typed import MisfitError, fit
from pruning_kit.plans.plan import Plan
from pruning_kit.runs.facts import RoundFacts, RunFacts, Samples
from pruning_kit.speed.stored_timings import StoredTimings, to_json
from tests.synthetic_runs import facts_of, round_of, synthetic_timings

PLANS = [Plan(), Plan((0,)), Plan((0, 1))]
WHOLE = {
    RunFacts: msgspec.to_builtins(facts_of(3, {"reported": [7, 4], "selection": [5]})),
    RoundFacts: msgspec.to_builtins(round_of(PLANS)),
    Samples: {"prompt": "It", "new_tokens": 2, "texts": {"none": "It was", "0": "It is"}},
    StoredTimings: to_json(synthetic_timings(PLANS, 3, n_rounds=2)),
}


class Leaf(Struct, frozen=True, kw_only=True):
    n: Annotated[int, Meta(ge=1)]
    even: int = 0

    def __post_init__(self) -> None:
        if self.even % 2:
            raise MisfitError("even", f"{self.even} is odd")


class Tree(Struct, frozen=True, kw_only=True):
    leaves: dict[str, dict[str, tuple[Leaf, ...]]] = {}
    top: Leaf | None = None
    color: Literal["red"] = "red"


GOOD = [{"n": 1}]


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"top": {"n": 0}}, "top.n", ""),
        ({"top": {}}, "top.n", ""),
        ({"top": 1}, "top", ""),
        ({"top": {"n": 1, "even": 3}}, "top.even", "3 is odd"),
        (
            {"leaves": {"a": {"b": GOOD}, "c.d[0]": {"e": GOOD * 2 + [{}]}}},
            "leaves.c.d[0].e[2].n",
            "",
        ),
        ({"leaves": {"a": {"b": GOOD, "c": [{"n": "1"}]}}}, "leaves.a.c[0].n", ""),
        ({"leaves": {"a": {"b": [{"n": 1, "even": 1}]}}}, "leaves.a.b[0].even", "1 is odd"),
        ({"leaves": {"a" * 99: []}}, f"leaves.{'a' * 40}", ""),
        ({"color": "x' - at `$.top[...]`"}, "color", ""),
    ],
)
def test_the_first_misfit_is_named_by_its_path(value, path, reason):
    with pytest.raises(MisfitError) as error:
        fit(value, Tree)
    assert (error.value.path, error.value.reason) == (path, reason)


def test_a_misfit_follows_one_thing_or_many():
    lacks = MisfitError("a.b")
    assert lacks.of_one == "lacks a.b, or holds it in another form"
    assert lacks.of_many == "lack a.b, or hold it in another form"
    wrong = MisfitError("a", "it is odd")
    assert wrong.of_one == "is wrong in a: it is odd"
    assert wrong.of_many == "are wrong in a: it is odd"
    assert MisfitError("", "it is odd").of_many == "are wrong: it is odd"


def places(value: Any, path: tuple = ()):
    """The path of everything in a JSON value."""
    if path:
        yield path
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["none", "0", "9" * 5000, "0+0", 10**400, -(10**18)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


PLACES = {kind: sorted(places(content), key=repr) for kind, content in WHOLE.items()}


@pytest.mark.parametrize("kind", WHOLE)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_damage_to_stored_facts_is_a_misfit_or_harmless(kind, data):
    content = json.loads(json.dumps(WHOLE[kind]))
    assert fit(copy.deepcopy(content), kind) is not None
    *way, last = data.draw(st.sampled_from(PLACES[kind]))
    inner = content
    for key in way:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[last] = data.draw(ANYTHING)
    else:
        del inner[last]
    try:
        fit(content, kind)
    except MisfitError as misfit:
        assert (misfit.path or misfit.reason) and len(misfit.of_one) < 250
