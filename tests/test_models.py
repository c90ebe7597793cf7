"""Finding and loading models: the default falls back loudly, a model asked for never does."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny_gpt2

from pruning_kit.errors import ArchitectureError, DeviceError, ModelError
from pruning_kit.inputs import hub, models
from pruning_kit.inputs.models import (
    DEMO_FOLDER,
    ModelSource,
    choose_device,
    choose_dtype,
    find_model,
    load_model,
)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return save_tiny_gpt2(tmp_path_factory.mktemp("tiny"), dtype=torch.float16)


@pytest.fixture
def broken(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "broken")


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setattr(hub, "cached_model", lambda _: None)
    monkeypatch.setattr(hub, "answers", lambda *_: None)


def test_the_default_without_network_is_the_demo_model_and_says_so(no_hub):
    source = find_model(None)
    assert (source.name, source.folder) == ("demo", DEMO_FOLDER)
    assert source.note == (
        "distilgpt2 is not in the local cache and the Hugging Face Hub did not answer within "
        "4 seconds"
    )


def test_the_default_is_taken_from_the_cache_without_asking_the_hub(monkeypatch, tiny_folder):
    monkeypatch.setattr(hub, "cached_model", lambda _: tiny_folder)
    monkeypatch.setattr(hub, "answers", lambda *_: pytest.fail("asked"))
    assert find_model(None) == ModelSource("distilgpt2", tiny_folder, tiny_folder.name)


def test_the_default_is_downloaded_where_the_hub_answers(monkeypatch, tiny_folder):
    monkeypatch.setattr(hub, "cached_model", lambda _: None)
    monkeypatch.setattr(hub, "answers", lambda *_: 200)
    monkeypatch.setattr(hub, "download_model", lambda _: tiny_folder)
    assert find_model(None).name == "distilgpt2"


def test_a_download_of_the_default_that_breaks_off_falls_back_with_its_reason(monkeypatch):
    def break_off(_):
        raise OSError("connection reset")

    monkeypatch.setattr(hub, "cached_model", lambda _: None)
    monkeypatch.setattr(hub, "answers", lambda *_: 200)
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
        "network, or use --model demo."
    )


def test_an_unknown_model_is_named_with_what_the_hub_said(monkeypatch):
    monkeypatch.setattr(hub, "cached_model", lambda _: None)
    monkeypatch.setattr(hub, "answers", lambda *_: 404)
    with pytest.raises(ModelError, match=r"does not give it to us \(HTTP status 404\)"):
        find_model("nobody/nothing")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "a/b/c", "what is this"])
def test_a_path_that_does_not_exist_is_no_hub_id(name):
    with pytest.raises(ModelError, match="there is no such folder"):
        find_model(name)


def test_weights_run_in_float32_whatever_they_are_stored_in(tiny_folder):
    loaded = load_model(find_model(str(tiny_folder)))
    assert loaded.model.dtype == torch.float32
    assert loaded.stored_dtype == "float16"
    assert loaded.context_limit == loaded.default_context == 32


def test_the_weights_hash_changes_with_a_weight(tiny_folder, broken):
    assert models.weights_hash(broken) == models.weights_hash(tiny_folder)
    weights = load_file(broken / "model.safetensors")
    weights["transformer.wte.weight"][0, 0] += 1
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert models.weights_hash(broken) != models.weights_hash(tiny_folder)


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_missing_weights_are_refused_instead_of_random(broken):
    change_config(broken, n_layer=4)
    with pytest.raises(ModelError, match=r"its weights lack .* which would be random"):
        load_model(find_model(str(broken)))


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
    with pytest.raises(ModelError, match="cannot load model"):
        load_model(find_model(str(broken)))


def test_damaged_weights_are_named(broken):
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match="cannot load model"):
        load_model(find_model(str(broken)))


def test_devices_and_formats_that_do_not_exist_are_named():
    assert choose_dtype("auto", choose_device("cpu")) == torch.float32
    with pytest.raises(DeviceError, match="cannot use device 'cuda:99'"):
        choose_device("cuda:99")
    with pytest.raises(DeviceError, match="cannot compute in 'int8': choose auto"):
        choose_dtype("int8", torch.device("cpu"))
