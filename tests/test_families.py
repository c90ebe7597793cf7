"""One contract for every family: what the kit computes is what the really cut model computes."""

from __future__ import annotations

import copy
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from families import N_BLOCKS, NAMES, VARIANTS, attentions, random_tokens, tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.families import FAMILIES
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.surgery import (
    count_parameters,
    cut,
    per_block_lists,
    predicted_parameters,
    recut,
    stored_copy,
)
from pruning_kit.walk.reference import ReferenceKernel, token_nll
from pruning_kit.walk.sums import nll_sums

PLANS = [Plan(blocks) for blocks in [(), (0,), (1,), (2,), (3,), (1, 2), (0, 2), (0, 1, 2)]]
SUBSETS = [Plan(blocks) for size in range(N_BLOCKS) for blocks in combinations(range(4), size)]

IN_FULL = ("gpt2", "llama", "gemma2")


def cases_of(name: str) -> list[Any]:
    """The attention that a family has by default, and the others, which are `slow` of most."""
    *others, default = attentions(name)
    marks = [pytest.mark.slow] * (name not in IN_FULL)
    return [*(pytest.param((name, other), marks=marks) for other in others), (name, default)]


CASES = [case for name in NAMES for case in cases_of(name)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(*request.param)


@pytest.fixture(scope="module")
def cut_models(model: Any) -> dict[Plan, Any]:
    """A really cut copy of the model for each of `PLANS`."""
    return {plan: cut(copy.deepcopy(model), plan) for plan in PLANS}


@torch.no_grad()
def plain_logits(model: Any, tokens: Tensor) -> Tensor:
    return model(tokens, use_cache=False).logits


def snapshot(model: Any) -> tuple[Any, ...]:
    """Everything that cutting touches."""
    numbers = [(id(m), m.__dict__.get("layer_idx")) for m in model.modules()]
    return model.config.to_dict(), numbers, count_parameters(model)


def test_every_known_family_is_under_contract() -> None:
    assert set(FAMILIES) == set(NAMES) - set(VARIANTS)


def test_the_documentation_lists_every_family() -> None:
    document = (Path(__file__).parents[1] / "docs/architectures.md").read_text(encoding="utf-8")
    said = re.search(r"drives (\d+) families .* by `config.model_type`:\s([^.]*)\.", document)
    assert said is not None
    assert int(said[1]) == len(FAMILIES)
    assert re.split(r",\s", said[2]) == list(FAMILIES)


class TestFamily:
    def test_the_walk_computes_the_cut_models_logits_exactly(
        self, model: Any, cut_models: dict[Plan, Any]
    ) -> None:
        decoder, tokens = Decoder(model), random_tokens()
        recording = decoder.record(tokens)
        for plan, smaller in cut_models.items():
            hidden = recording.hidden_BTD
            for block in plan.kept(N_BLOCKS):
                hidden = decoder.run_block(block, hidden, recording)
            reference = plain_logits(smaller, tokens)
            assert torch.equal(decoder.head_by_forward(hidden, tokens, slice(0, 20)), reference)
            part = decoder.head_by_forward(hidden, tokens, slice(3, 20))
            # The head may run on fewer positions: a product of another shape, rounded otherwise.
            torch.testing.assert_close(part, reference[:, 3:20], rtol=0, atol=2e-6)

    def test_every_block_matters_so_that_equality_says_something(
        self, model: Any, cut_models: dict[Plan, Any]
    ) -> None:
        tokens = random_tokens()
        whole = plain_logits(model, tokens)
        for plan in PLANS[1:]:
            assert (whole - plain_logits(cut_models[plan], tokens)).abs().max() > 0.05, plan

    def test_nll_of_every_subset_equals_a_loop_over_cut_models(self, model: Any) -> None:
        decoder, text = Decoder(model), random_tokens(length=21)
        tokens, targets = text[:, :-1], text[:, 5:]
        exact = decoder.head_is_exact(tokens, slice(4, 20))
        sums = nll_sums(
            ReferenceKernel(decoder, exact), SUBSETS, N_BLOCKS, tokens, targets, first_output=4
        )
        for plan, row in zip(SUBSETS, sums, strict=True):
            with recut(decoder, plan) as smaller:
                logits = plain_logits(smaller, tokens)[:, 4:]
            nll = token_nll(logits.flatten(0, 1), targets.flatten()).view_as(targets)
            # float32 logits of products of another shape: rounding only
            torch.testing.assert_close(row, nll.double().sum(1), rtol=1e-5, atol=0)

    def test_recut_lends_the_cut_model_and_restores_all(
        self, model: Any, cut_models: dict[Plan, Any]
    ) -> None:
        decoder, tokens, before = Decoder(model), random_tokens(), snapshot(model)
        logits = plain_logits(model, tokens)
        for plan, reference in cut_models.items():
            with recut(decoder, plan) as smaller:
                assert smaller.config.to_dict() == reference.config.to_dict()
                assert torch.equal(plain_logits(smaller, tokens), plain_logits(reference, tokens))
            assert snapshot(model) == before
        assert torch.equal(plain_logits(model, tokens), logits)

    def test_parameters_are_as_predicted(self, model: Any, cut_models: dict[Plan, Any]) -> None:
        decoder = Decoder(model)
        for plan, smaller in cut_models.items():
            assert predicted_parameters(decoder, plan) == count_parameters(smaller)

    def test_the_config_describes_the_blocks_that_stay(
        self, model: Any, cut_models: dict[Plan, Any]
    ) -> None:
        lists = per_block_lists(model.config, N_BLOCKS)
        smaller = cut_models[Plan((0, 2))].config
        assert smaller.num_hidden_layers == 2
        for name in lists:
            kinds = getattr(model.config, name)
            assert list(getattr(smaller, name)) == [kinds[1], kinds[3]]

    def test_cached_greedy_generation_equals_uncached(self, cut_models: dict[Plan, Any]) -> None:
        prompt = random_tokens(batch=1, length=6)
        for plan in (Plan(), Plan((0,)), Plan((1, 2))):
            tokens = [greedy(cut_models[plan], prompt, cached) for cached in (True, False)]
            assert torch.equal(*tokens), plan
            assert tokens[0].shape == (1, 11)  # more than the windows of some families hold

    def test_a_saved_folder_reloads_with_identical_logits(
        self, model: Any, cut_models: dict[Plan, Any], tmp_path: Path
    ) -> None:
        tokens = random_tokens()
        for plan in (Plan((0, 2)), Plan((0, 1, 2))):
            smaller = cut_models[plan]
            folder = tmp_path / str(plan)
            stored_copy(smaller, torch.float32).save_pretrained(folder)
            reloaded, info = AutoModelForCausalLM.from_pretrained(
                folder,
                attn_implementation=model.config._attn_implementation,
                output_loading_info=True,
            )
            assert not info["missing_keys"]
            assert not info["unexpected_keys"]
            assert reloaded.config.num_hidden_layers == N_BLOCKS - plan.size
            logits, again = plain_logits(smaller, tokens), plain_logits(reloaded, tokens)
            if getattr(model.config, "scale_attn_by_inverse_layer_idx", False):
                # Queries were multiplied by (new + 1) / (old + 1): exact but for rounding.
                torch.testing.assert_close(again, logits, rtol=0, atol=1e-5)
            else:
                assert torch.equal(again, logits), plan


def greedy(model: Any, prompt: Tensor, use_cache: bool) -> Tensor:
    model.generation_config = GenerationConfig(pad_token_id=0)
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=5,
        use_cache=use_cache,
    )
