"""Surgery: parameters of known shapes, configs that mislead, exact restoration, adapted weights."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from families import N_BLOCKS, random_tokens, tiny_config, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Model,
)

from pruning_kit.errors import ArchitectureError, PlanError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.surgery import (
    block_numbers,
    block_signature,
    count_parameters,
    cut,
    per_block_lists,
    predicted_parameters,
    recut,
    stored_copy,
    trim_config,
)

DISTILGPT2_MILLIONS = ["81.91", "74.82", "67.74", "60.65", "53.56", "46.47"]


@pytest.fixture(scope="module")
def distilgpt2_shape() -> Decoder:
    """GPT-2 with six blocks and no weights: 50,257 tokens, 1,024 positions, width 768."""
    with torch.device("meta"):
        return Decoder(AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_layer=6)))


def millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


class TestParameters:
    def test_distilgpt2_has_the_published_millions_at_every_depth(
        self, distilgpt2_shape: Decoder
    ) -> None:
        plans = [Plan(tuple(range(count))) for count in range(6)]
        predicted = [predicted_parameters(distilgpt2_shape, plan) for plan in plans]
        assert [millions(count) for count in predicted] == DISTILGPT2_MILLIONS

    def test_the_really_cut_model_has_as_many(self, distilgpt2_shape: Decoder) -> None:
        for plan in (Plan((1, 3)), Plan((0, 1, 2, 3, 4))):
            with recut(distilgpt2_shape, plan) as smaller:
                assert millions(count_parameters(smaller)) == DISTILGPT2_MILLIONS[plan.size]

    def test_a_tied_embedding_counts_once(self) -> None:
        tied, untied = tiny_model("gpt2"), tiny_model("gpt2-untied")
        embedding = tied.get_output_embeddings().weight.numel()
        assert count_parameters(untied) - count_parameters(tied) == embedding

    def test_a_plan_that_does_not_fit_is_refused(self, distilgpt2_shape: Decoder) -> None:
        with pytest.raises(PlanError, match=r"cannot remove block 6: the model has 6 blocks"):
            predicted_parameters(distilgpt2_shape, Plan((6,)))


class TestConfig:
    def test_lists_that_merely_have_as_many_entries_stay(self) -> None:
        config = tiny_config("qwen2", eos_token_id=[1, 2, 3, 4], layer_scales=[1, 2, 3, 4])
        assert per_block_lists(config, N_BLOCKS) == ["layer_types"]
        trim_config(config, (0, 3), N_BLOCKS)
        assert config.eos_token_id == [1, 2, 3, 4]
        assert config.layer_scales == [1, 2, 3, 4]

    def test_a_list_with_spare_entries_is_trimmed_to_the_kept_blocks(self) -> None:
        config = tiny_config("smollm3", no_rope_layers=[1, 0, 1, 0, 1, 1])
        trim_config(config, (1, 2), N_BLOCKS)
        assert config.no_rope_layers == [0, 1]

    @pytest.mark.parametrize(
        ("name", "setting"),
        [
            ("gemma3_text", {"layer_types": None, "sliding_window_pattern": 2}),
            ("cohere2", {"layer_types": None, "sliding_window_pattern": 2}),
            ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 2}),
            ("qwen2", {"layer_types": None, "max_window_layers": 2}),
        ],
    )
    def test_a_pattern_in_the_config_does_not_come_back_on_reload(
        self, name: str, setting: dict[str, Any], tmp_path: Any
    ) -> None:
        config = tiny_config(name, **setting)
        [listed, *_] = per_block_lists(config, N_BLOCKS)
        kinds = list(getattr(config, listed))
        assert len(set(kinds)) == 2
        trim_config(config, (1, 2, 3), N_BLOCKS)
        config.save_pretrained(tmp_path)
        reloaded = AutoConfig.from_pretrained(tmp_path)
        assert reloaded.num_hidden_layers == 3
        assert list(getattr(reloaded, listed)) == kinds[1:]

    def test_gpt_neo_keeps_list_and_shorthand_in_step(self, tmp_path: Any) -> None:
        config = tiny_config("gpt_neo")
        trim_config(config, (1, 3), N_BLOCKS)
        assert config.attention_types == [[["local"], 1], [["local"], 1]]
        config.save_pretrained(tmp_path)
        assert AutoConfig.from_pretrained(tmp_path).attention_layers == ["local", "local"]

    def test_blocks_of_different_kind_have_different_signatures(self) -> None:
        decoder = Decoder(tiny_model("qwen2"))
        signatures = [block_signature(decoder, block) for block in range(N_BLOCKS)]
        assert signatures[0] == signatures[2] != signatures[1] == signatures[3]


class TestRecut:
    @given(removed=st.sets(st.integers(0, N_BLOCKS - 1), max_size=N_BLOCKS - 1))
    def test_an_exception_inside_leaves_nothing_behind(self, removed: set[int]) -> None:
        model = tiny_model("gemma3_text")
        decoder = Decoder(model)
        blocks, fields = decoder.blocks, dict(model.config.__dict__)
        numbers = list(block_numbers(decoder.stack))
        with (
            pytest.raises(KeyboardInterrupt),
            recut(decoder, Plan(tuple(removed))) as smaller,
        ):
            assert smaller.config.num_hidden_layers == N_BLOCKS - len(removed)
            raise KeyboardInterrupt
        assert all(now is then for now, then in zip(decoder.blocks, blocks, strict=True))
        assert list(block_numbers(decoder.stack)) == numbers
        assert model.config.__dict__ == fields
        assert all(model.config.__dict__[name] is value for name, value in fields.items())

    def test_a_refused_plan_leaves_nothing_behind(self) -> None:
        decoder = Decoder(tiny_model("gpt2"))
        with (
            pytest.raises(PlanError, match=r"cannot remove all 4 blocks"),
            recut(decoder, Plan((0, 1, 2, 3))),
        ):
            pass
        assert decoder.n_blocks == N_BLOCKS

    def test_numbers_are_restored_even_where_they_were_wrong(self) -> None:
        decoder = Decoder(tiny_model("gpt2"))
        decoder.stack[2].attn.layer_idx = 7
        with recut(decoder, Plan((0,))) as smaller:
            assert [block.attn.layer_idx for block in smaller.transformer.h] == [0, 1, 2]
        assert [block.attn.layer_idx for block in decoder.stack] == [0, 1, 7, 3]

    def test_cuts_nest(self) -> None:
        model, tokens = tiny_model("gpt2"), random_tokens()
        decoder = Decoder(model)
        twice = cut(copy.deepcopy(model), Plan((0, 2)))
        with recut(decoder, Plan((0,))), recut(decoder, Plan((1,))) as smaller, torch.no_grad():
            assert torch.equal(smaller(tokens).logits, twice(tokens).logits)
        assert decoder.n_blocks == N_BLOCKS


class TestStoredCopy:
    def test_the_callers_model_is_not_changed(self) -> None:
        model = cut(tiny_model("gpt2-inverse"), Plan((0,)))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        config = model.config.to_dict()
        stored_copy(model, torch.float16)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert model.config.to_dict() == config

    def test_queries_are_multiplied_by_the_ratio_of_the_block_numbers(self) -> None:
        model = cut(tiny_model("gpt2-inverse"), Plan((0, 1)))
        saved = stored_copy(model, torch.float32)
        width = model.config.n_embd
        for new, old in enumerate((2, 3)):
            before = model.transformer.h[new].attn.c_attn
            after = saved.transformer.h[new].attn.c_attn
            for was, now in ((before.weight, after.weight), (before.bias, after.bias)):
                ratio = (new + 1) / (old + 1)
                torch.testing.assert_close(now[..., :width], was[..., :width] * ratio)
                assert torch.equal(now[..., width:], was[..., width:])

    def test_cross_attention_has_its_own_queries_adapted(self) -> None:
        model = tiny_model(
            "gpt2-crossattention", scale_attn_by_inverse_layer_idx=True, is_decoder=True
        )
        tokens, encoded = random_tokens(), torch.randn(2, 5, 16)
        smaller = cut(model, Plan((0,)))
        saved = stored_copy(smaller, torch.float32)
        with torch.no_grad():
            logits = smaller(tokens, encoder_hidden_states=encoded).logits
            again = saved(tokens, encoder_hidden_states=encoded).logits
        torch.testing.assert_close(again, logits, rtol=0, atol=1e-5)  # one rounding a weight

    def test_tied_weights_stay_tied(self) -> None:
        saved = stored_copy(tiny_model("gpt2"), torch.float16)
        assert saved.lm_head.weight is saved.transformer.wte.weight
        assert saved.dtype == torch.float16


class TestDecoder:
    def test_a_softcap_is_seen_even_where_it_hardly_matters(self) -> None:
        decoder = Decoder(tiny_model("gemma2", final_logit_softcapping=1e4))
        assert not decoder.head_is_exact(random_tokens(), slice(3, 20))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_driven_exactly(self, dtype: torch.dtype) -> None:
        model, tokens = tiny_model("llama").to(dtype), random_tokens()
        decoder = Decoder(model)
        assert decoder.head_is_exact(tokens, slice(3, 20))
        recording = decoder.record(tokens)
        hidden = recording.hidden_BTD
        for block in range(N_BLOCKS):
            hidden = decoder.run_block(block, hidden, recording)
        with torch.no_grad():
            reference = model(tokens, use_cache=False).logits
        assert torch.equal(decoder.head_by_forward(hidden, tokens, slice(0, 20)), reference)

    def test_a_forward_that_was_put_on_a_block_is_put_back(self) -> None:
        model = tiny_model("gpt2")
        block = model.transformer.h[1]
        own = block.forward
        block.forward = lambda *args, **kwargs: own(*args, **kwargs)
        placed = block.forward
        Decoder(model).record(random_tokens())
        assert block.__dict__["forward"] is placed
        assert "forward" not in model.transformer.h[0].__dict__

    def test_a_block_that_is_called_twice_is_refused(self) -> None:
        decoder = Decoder(tiny_model("gpt2"))
        decoder.stack[2] = decoder.stack[1]
        with pytest.raises(
            ArchitectureError,
            match=re.escape(
                "cannot drive this gpt2 model: its forward called the blocks [0, 1, 2, 1, 2, 3], "
                "not each of 0 to 3 once and in order."
            ),
        ):
            decoder.record(random_tokens())

    def test_a_model_without_head_is_refused(self) -> None:
        with pytest.raises(
            ArchitectureError,
            match=r"cannot drive a gpt2 model of class GPT2Model: it has no transformer\.h\. "
            r"Load a causal language model",
        ):
            Decoder(GPT2Model(tiny_config("gpt2")))

    def test_a_classifier_is_refused(self) -> None:
        model = AutoModelForSequenceClassification.from_config(tiny_config("gpt2"))
        with pytest.raises(
            ArchitectureError,
            match=r"class GPT2ForSequenceClassification: it has no output embedding\.",
        ):
            Decoder(model)

    def test_an_unknown_family_is_refused(self) -> None:
        class Odd(nn.Module):
            config = AutoConfig.for_model("bert", num_hidden_layers=1)

        with pytest.raises(
            ArchitectureError, match=r"no adapter for model type 'bert': pruning_kit knows bloom,"
        ):
            Decoder(Odd())  # type: ignore[arg-type]
