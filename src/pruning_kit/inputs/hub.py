"""The Hugging Face Hub: does it answer, and what is already in the local cache.

Whether the Hub answers is decided once, in a thread with a hard deadline: name resolution ignores
socket time-outs, and the Hub client's own retries take much longer than a person waits.
"""

from __future__ import annotations

import threading
from functools import cache
from glob import escape
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    validate_repo_id,
)

from pruning_kit.errors import ModelError, first_line
from pruning_kit.inputs.weights import check_config, choose_files, find_weights

DEADLINE_S = 4.0
ANY_PAGE = "api/models?limit=1"
SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
"""Config, index and tokenizer. The weights are asked for by their names."""
CARD = "README.md"
ELSEWHERE = ["*/*"]
"""Sub-folders hold copies for other programs."""


def is_repo_id(name: str) -> bool:
    """Whether a repository of the Hub can have this name."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


@cache
def silence() -> str | None:
    """Why the Hub cannot be asked anything, as half a sentence; None if it answers."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, so the Hugging Face Hub is not asked"
    if not _is_web_address(constants.ENDPOINT):
        return f"HF_ENDPOINT is {constants.ENDPOINT!r}, no address such as https://huggingface.co"
    answer = _ask(ANY_PAGE)
    return answer if isinstance(answer, str) else None


@cache
def refusal(repo_id: str) -> str | None:
    """Why a model cannot be had from the Hub, as half a sentence; None if it can."""
    if reason := silence():
        return reason  # wait for a silent Hub once, not once for each model
    answer = _ask(f"{repo_id}/resolve/main/config.json")
    if isinstance(answer, str):
        return answer
    if answer in (401, 403):
        hint = "a private or gated model needs a token, see hf auth login"
        return f"the Hugging Face Hub does not give it to us (HTTP status {answer}: {hint})"
    if answer == 404 and _ask(f"api/models/{repo_id}") == 200:
        return None  # it lacks a config only: what it has instead is said when it is listed
    if answer >= 400:
        return f"the Hugging Face Hub does not give it to us (HTTP status {answer})"
    return None


def _is_web_address(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _ask(path: str) -> int | str:
    """HTTP status of a HEAD request to the Hub, or why there is none."""
    answers: list[int | str] = []
    worker = threading.Thread(target=lambda: answers.append(_head(path)), daemon=True)
    worker.start()
    worker.join(DEADLINE_S)
    late = f"the Hugging Face Hub did not answer within {DEADLINE_S:.0f} seconds"
    return answers[0] if answers else late


def _head(path: str) -> int | str:
    """Ask the Hub itself and nobody else: the token must not follow a redirect to another host."""
    try:
        response = get_session().head(
            f"{constants.ENDPOINT}/{path}",
            headers=build_hf_headers(),
            follow_redirects=False,
            timeout=2 * DEADLINE_S,  # only ends the thread: the deadline has passed by then
        )
    except Exception as error:  # in a thread of its own: whatever it is must reach the caller
        return f"the Hugging Face Hub could not be reached ({first_line(error)})"
    return response.status_code


def cached_folder(repo_id: str) -> Path | None:
    """Folder of what the local cache has of a model, whole or not; None if it has nothing."""
    try:
        return _snapshot(repo_id, SMALL_FILES, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def cached_model(repo_id: str) -> Path | None:
    """Folder of a model whose weights are all in the local cache, or None."""
    folder = cached_folder(repo_id)
    try:
        return folder and find_weights(repo_id, folder).folder
    except ModelError:
        return None


def download_model(repo_id: str) -> Path:
    """Fetch config, tokenizer, card and the weights of a model; the folder they lie in.

    Raises:
        OSError: if the Hub refuses or the transfer breaks off.
        ModelError: if the repository holds no weights that the kit reads.
    """
    try:
        present = HfApi().list_repo_files(repo_id)
        check_config(repo_id, "the repository", present)
        folder = _snapshot(repo_id, SMALL_FILES)
        shards = choose_files(repo_id, folder, present).shards
        return _snapshot(repo_id, [*SMALL_FILES, CARD, *map(escape, shards)])
    except ModelError:
        raise
    except Exception as error:  # its own kinds and those of its HTTP client; few are OSErrors
        raise OSError(first_line(error)) from error


def _snapshot(repo_id: str, patterns: list[str], local_files_only: bool = False) -> Path:
    return Path(
        snapshot_download(
            repo_id,
            allow_patterns=patterns,
            ignore_patterns=ELSEWHERE,
            local_files_only=local_files_only,
        )
    )
