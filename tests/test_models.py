"""Finding and loading models: the default falls back loudly, a model asked for never does."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny_gpt2

from pruning_kit.errors import ArchitectureError, DeviceError, ModelError, first_line
from pruning_kit.inputs import hub
from pruning_kit.inputs.models import DEMO_FOLDER, ModelSource, find_model, load_model
from pruning_kit.inputs.weights import weights_hash
from pruning_kit.machine.devices import choose_device, choose_dtype


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return save_tiny_gpt2(tmp_path_factory.mktemp("tiny"), dtype=torch.float16)


@pytest.fixture
def broken(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "broken")


@pytest.fixture
def no_hub(monkeypatch):
    reason = "the Hugging Face Hub did not answer within 4 seconds"
    monkeypatch.setattr(hub, "cached_folder", lambda _: None)
    monkeypatch.setattr(hub, "refusal", lambda _: reason)


def test_the_default_without_network_is_the_demo_model_and_says_so(no_hub):
    source = find_model(None)
    assert (source.name, source.folder) == ("demo", DEMO_FOLDER)
    assert source.note == (
        "distilgpt2 is not in the local cache and the Hugging Face Hub did not answer within "
        "4 seconds"
    )


def test_the_default_is_taken_from_the_cache_without_asking_the_hub(monkeypatch, tiny_folder):
    monkeypatch.setattr(hub, "cached_model", lambda _: tiny_folder)
    monkeypatch.setattr(hub, "refusal", lambda _: pytest.fail("asked"))
    assert find_model(None) == ModelSource("distilgpt2", tiny_folder, tiny_folder.name)


def test_the_default_is_downloaded_where_the_hub_answers(monkeypatch, tiny_folder):
    monkeypatch.setattr(hub, "cached_model", lambda _: None)
    monkeypatch.setattr(hub, "refusal", lambda _: None)
    monkeypatch.setattr(hub, "download_model", lambda _: tiny_folder)
    assert find_model(None).name == "distilgpt2"


def test_a_download_of_the_default_that_breaks_off_falls_back_with_its_reason(monkeypatch):
    def break_off(_):
        raise OSError("connection reset")

    monkeypatch.setattr(hub, "cached_model", lambda _: None)
    monkeypatch.setattr(hub, "refusal", lambda _: None)
    monkeypatch.setattr(hub, "download_model", break_off)
    assert "the download failed (connection reset)" in find_model(None).note
    with pytest.raises(ModelError, match="cannot download model 'distilgpt2': connection reset"):
        find_model("distilgpt2")


def test_a_model_asked_for_never_falls_back(no_hub):
    with pytest.raises(ModelError) as error:
        find_model("distilgpt2")
    assert str(error.value) == (
        "cannot load model 'distilgpt2': there is no folder of that name, it is not in the local "
        "cache, and the Hugging Face Hub did not answer within 4 seconds. Check the name or the "
        "network, or use `model` demo."
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("dmeo", "demo"),
        ("Demo", "demo"),
        ("distilgpt-2", "distilgpt2"),
        ("distillgpt2", "distilgpt2"),
    ],
)
def test_a_near_miss_of_a_name_that_the_kit_knows_is_asked_about(no_hub, name, meant):
    with pytest.raises(ModelError) as error:
        find_model(name)
    assert str(error.value) == (
        f"cannot load model {name!r}: there is no folder of that name, it is not in the local "
        "cache, and the Hugging Face Hub did not answer within 4 seconds. Did you mean `model` "
        f"{meant}?"
    )


@pytest.mark.parametrize("name", ["gpt2", "distilbert/distilgpt2", "distilroberta", "model"])
def test_other_names_are_not_taken_for_near_misses(no_hub, name):
    with pytest.raises(ModelError, match=r"Check the name or the network, or use `model` demo\."):
        find_model(name)


def test_a_near_miss_that_no_model_on_the_hub_can_have_is_asked_about():
    with pytest.raises(ModelError) as error:
        find_model("démo")
    assert str(error.value) == (
        "cannot load model 'démo': there is no such folder, and no model on the Hub can have that "
        "name. Did you mean `model` demo?"
    )


def test_offline_mode_is_named_as_the_reason(monkeypatch):
    monkeypatch.setattr(hub, "cached_folder", lambda _: None)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    hub.silence.cache_clear()
    hub.refusal.cache_clear()
    with pytest.raises(ModelError) as error:
        find_model("nobody/nothing")
    hub.silence.cache_clear()
    hub.refusal.cache_clear()
    assert str(error.value) == (
        "cannot load model 'nobody/nothing': there is no folder of that name, it is not in the "
        "local cache, and HF_HUB_OFFLINE is set, so the Hugging Face Hub is not asked. Check the "
        "name or the network, or use `model` demo."
    )


@pytest.mark.parametrize(
    "name",
    ["./nowhere", "/nowhere", "a/b/c", "what is this", "gpt2--x", "x.git", "", "a" * 300],
)
def test_a_name_that_is_neither_folder_nor_hub_id_is_one_sentence(name):
    with pytest.raises(ModelError) as error:
        find_model(name)
    assert str(error.value) == (
        f"cannot load model {name!r}: there is no such folder, and no model on the Hub can have "
        "that name. Give a folder, a Hugging Face Hub id, or demo."
    )


def test_a_gguf_is_called_one_and_told_how_to_be_used(tmp_path):
    file = tmp_path / "tiny.Q8_0.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ModelError) as error:
        find_model(str(file))
    assert str(error.value) == (
        f"cannot load model '{file}': it has weights only as GGUF ('tiny.Q8_0.gguf'), the format "
        "of llama.cpp. Give the model that it was made from, or save it as safetensors: "
        "AutoModelForCausalLM.from_pretrained(..., gguf_file=...).save_pretrained(...)."
    )


def test_a_file_is_no_model(tiny_folder):
    name = str(tiny_folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors': it is a file\. Give the folder"):
        find_model(name)


def test_weights_run_in_float32_whatever_they_are_stored_in(tiny_folder):
    loaded = load_model(find_model(str(tiny_folder)))
    assert loaded.model.dtype == torch.float32
    assert loaded.stored_dtype == "float16"
    assert loaded.context_limit == loaded.default_context == 32


def test_the_weights_hash_changes_with_a_weight(tiny_folder, broken):
    assert weights_hash(broken) == weights_hash(tiny_folder)
    weights = load_file(broken / "model.safetensors")
    weights["transformer.wte.weight"][0, 0] += 1
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert weights_hash(broken) != weights_hash(tiny_folder)


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_missing_weights_are_refused_instead_of_random(broken):
    change_config(broken, n_layer=4)
    with pytest.raises(ModelError) as error:
        load_model(find_model(str(broken)))
    assert str(error.value) == (
        f"cannot use model {str(broken)!r}: its weights lack 12 tensors that its config asks for "
        "(such as transformer.h.3.attn.c_attn.bias), which would be random. Mend the checkpoint."
    )


def change_weights(folder, change):
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_weights_of_blocks_that_the_config_leaves_out_are_refused(broken, prefix):
    change_config(broken, n_layer=1)
    change_weights(
        broken,
        lambda weights: {
            name.replace("transformer.", prefix): tensor for name, tensor in weights.items()
        },
    )
    with pytest.raises(ModelError) as error:
        load_model(find_model(str(broken)))
    assert str(error.value) == (
        f"cannot use model {str(broken)!r}: its weights hold blocks 1, 2 for which its "
        "config.json, which asks for 1, has no place. Mend the checkpoint."
    )


def test_buffers_of_old_checkpoints_and_heads_of_training_are_let_be(broken):
    spare = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 32, 32),
        "transformer.h.2.attn.masked_bias": torch.tensor(-1e4),
        "transformer.h.1.attn.rotary.inv_freq": torch.ones(4),
        "v_head.weight": torch.ones(1, 16),
    }
    change_weights(broken, lambda weights: weights | spare)
    assert load_model(find_model(str(broken))).model.config.n_layer == 3


def test_a_model_without_blocks_is_refused(broken):
    change_config(broken, n_layer=0)
    with pytest.raises(ModelError, match=r"its config\.json asks for 0 blocks\. Give a model"):
        load_model(find_model(str(broken)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_layer": "six"}, r"config\.json cannot be used \(Validation error .* got str"),
        ({"n_head": 0}, "broken': integer division or modulo by zero"),
        ({"activation_function": "blah"}, "broken': KeyError: 'blah'"),
    ],
)
def test_values_that_no_model_can_have_are_named(broken, changes, reason):
    change_config(broken, **changes)
    with pytest.raises(ModelError, match=reason):
        load_model(find_model(str(broken)))


@pytest.mark.parametrize("content", ["", "{ no json", "\udcff\udcfe", "[1, 2]"])
def test_a_config_that_is_no_json_is_named(broken, content):
    (broken / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=r"broken': its config\.json cannot be used \(.+\)\. Mend"):
        load_model(find_model(str(broken)))


def test_a_folder_without_tokenizer_is_refused(broken):
    for file in broken.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError) as error:
        load_model(find_model(str(broken)))
    assert str(error.value) == (
        f"cannot load model {str(broken)!r}: its folder holds no tokenizer. Save the model's own "
        "there, as tokenizer.json."
    )


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_damaged_tokenizer_is_named(broken, content):
    (broken / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"broken': its tokenizer cannot be used \(.+\)\. Save"):
        load_model(find_model(str(broken)))


def test_a_tokenizer_that_does_not_tell_where_its_tokens_lie_is_refused(broken):
    for file in broken.glob("tokenizer*"):
        file.unlink()
    (broken / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    with pytest.raises(ModelError, match="ByT5Tokenizer cannot tell where in the text its tokens"):
        load_model(find_model(str(broken)))


def test_a_missing_generation_config_does_not_matter(broken):
    (broken / "generation_config.json").unlink()
    assert load_model(find_model(str(broken))).context_limit == 32


@pytest.mark.parametrize(
    ("model_type", "error", "message"),
    [
        ("t5", ModelError, "t5 is an encoder-decoder"),
        ("mamba", ArchitectureError, "no adapter for model type 'mamba': pruning_kit knows bloom"),
        ("bert", ArchitectureError, "no adapter for model type 'bert'"),
        ("nonsense", ModelError, "its config.json cannot be used"),
    ],
)
def test_a_model_that_is_no_known_decoder_is_refused(tmp_path, model_type, error, message):
    config = {"model_type": model_type, "is_encoder_decoder": model_type == "t5"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=message):
        load_model(find_model(str(tmp_path)))


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load_model(find_model(str(tmp_path)))


def test_pickled_weights_are_not_read(broken):
    (broken / "model.safetensors").unlink()
    torch.save({}, broken / "pytorch_model.bin")
    with pytest.raises(ModelError) as error:
        load_model(find_model(str(broken)))
    assert str(error.value) == (
        f"cannot load model {str(broken)!r}: it has weights only as a pickle "
        "('pytorch_model.bin'), which can run code when it is read. Where you trust it, save it as "
        "safetensors: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)."
    )


def test_damaged_weights_are_named(broken):
    whole = (broken / "model.safetensors").read_bytes()
    for content in (b"", b"\0" * 100, whole[: len(whole) // 2]):
        (broken / "model.safetensors").write_bytes(content)
        with pytest.raises(
            ModelError, match=r"broken': 'model\.safetensors' cannot be read as safe"
        ):
            load_model(find_model(str(broken)))


def test_devices_and_formats_that_do_not_exist_are_named():
    assert choose_dtype("auto", choose_device("cpu")) == torch.float32
    with pytest.raises(DeviceError, match="cannot use device 'cuda:99'"):
        choose_device("cuda:99")
    with pytest.raises(DeviceError, match="cannot compute in 'int8': choose auto"):
        choose_dtype("int8", torch.device("cpu"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("first.\nsecond"), "first"),
        (RuntimeError(), "RuntimeError"),
        (OSError(" \n "), "OSError"),
        (KeyError("added_tokens"), "KeyError: 'added_tokens'"),
        (ValueError("wrong 'n':\n    not an int"), "wrong 'n': not an int"),
        (ValueError("word " * 100), "word " * 39 + "…"),
    ],
)
def test_what_another_library_says_is_never_empty_and_never_long(error, said):
    assert first_line(error) == said


def test_each_of_several_processes_takes_a_gpu_in_turn_which_is_not_woken_for_that(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", pytest.fail)
    found = [choose_device("auto", process) for process in range(4)]
    assert found == [torch.device("cuda", number) for number in (0, 1, 0, 1)]
