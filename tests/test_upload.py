"""Pushing to the Hub: private, refused before anything is computed, and never without a token."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelInfo
from huggingface_hub.utils.sha import git_hash

from pruning_kit.cli import app as cli
from pruning_kit.export import upload as module
from pruning_kit.inputs import hub


class Hub:
    """In place of the Hub's client: what it was asked for."""

    def __init__(self) -> None:
        self.made: list[tuple[str, bool]] = []
        self.files: list[str] = []
        self.blobs: dict[str, str] = {}
        self.messages: list[str] = []
        self.taken: set[str] = set()
        self.failure: Exception | None = None

    def whoami(self) -> dict[str, str]:
        return {"name": "me"}

    def repo_exists(self, repo_id: str) -> bool:
        return repo_id in self.taken

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> str:
        assert exist_ok or repo_id not in self.taken
        self.made.append((repo_id, private))
        self.taken.add(repo_id)
        return f"https://huggingface.co/{repo_id}"

    def model_info(self, repo_id: str, files_metadata: bool) -> ModelInfo:
        """As the Hub tells it of a repository with these files."""
        blobs = {".gitattributes": "a" * 40} | self.blobs
        files = [{"rfilename": name, "blobId": blob} for name, blob in blobs.items()]
        return ModelInfo(id=repo_id, private=self.made[-1][1], siblings=files, tags=[])

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.files = sorted(path.name for path in folder_path.iterdir())
        self.blobs = {path.name: git_hash(path.read_bytes()) for path in folder_path.iterdir()}
        self.messages.append(commit_message)


def refuse() -> None:
    raise OSError("401, unauthorised.")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub()
    monkeypatch.setattr(module, "HfApi", lambda: fake)
    monkeypatch.setattr(module, "get_token", lambda: "hf_of_the_user")
    monkeypatch.setattr(hub, "silence", lambda: None)
    return fake


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str]:
        code = cli.main(["prune", "--model", "demo", "--remove", "4", "--out", "p", *words])
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return call


def test_a_folder_becomes_a_private_repository(run, fake):
    code, said = run("--push-to-hub", "small")
    assert code == 0
    assert said.endswith("On the Hub it is https://huggingface.co/me/small, for you alone to read.")
    assert fake.made == [("me/small", True)]
    assert fake.messages == ["demo without 4"]
    assert {"README.md", "config.json", "model.safetensors", "pruning.json"} <= set(fake.files)


def test_it_is_public_only_where_that_is_said(run, fake):
    code, said = run("--push-to-hub", "us/small", "--public")
    assert (code, fake.made) == (0, [("us/small", False)])
    assert said.endswith("us/small, for everybody to read.")


@pytest.mark.parametrize(
    ("words", "change", "said"),
    [
        (
            ("--push-to-hub", "us/small"),
            {"taken": {"us/small"}},
            "cannot push to 'us/small' on the Hub: there is a repository us/small already. Give "
            "another name.",
        ),
        (
            ("--push-to-hub", "a b"),
            {},
            "cannot push to 'a b' on the Hub: no repository of the Hub can have that name. Write "
            "user/name.",
        ),
        (
            ("--push-to-hub", "small"),
            {"whoami": refuse},
            "cannot push to 'small' on the Hub: 401, unauthorised. Check the token and the "
            "network.",
        ),
        (
            ("--public",),
            {},
            "cannot use --public without --push-to-hub: it says who may read what that makes. Give "
            "both, or neither.",
        ),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_written(
    run, fake, tmp_path, words, change, said
):
    vars(fake).update(change)
    assert run(*words) == (2, f"Error: {said}")
    assert fake.made == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("where", "name", "value", "said"),
    [
        (
            module,
            "get_token",
            None,
            "no token is known. Log in with hf auth login, or set HF_TOKEN.",
        ),
        (hub, "silence", "it is night", "it is night. Push later with hf upload."),
    ],
)
def test_without_token_or_hub_nothing_is_asked(
    run, fake, monkeypatch, tmp_path, where, name, value, said
):
    monkeypatch.setattr(where, name, lambda: value)
    assert run("--push-to-hub", "us/small") == (
        2,
        f"Error: cannot push to 'us/small' on the Hub: {said}",
    )
    assert fake.made == [] and not list(tmp_path.iterdir())


def test_a_transfer_that_breaks_off_leaves_the_folder_and_says_how_to_go_on(run, fake, tmp_path):
    fake.failure = ConnectionError("the line is dead")
    code, said = run("--push-to-hub", "us/small")
    assert code == 2
    assert said.endswith(
        "Error: cannot push to 'us/small' on the Hub: the line is dead. The folder is whole; push "
        "it with hf upload us/small p."
    )
    assert (tmp_path / "p" / "model.safetensors").exists()
