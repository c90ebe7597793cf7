"""The Hugging Face Hub: does it answer, and what is already in the local cache.

Whether the Hub answers is decided once, in a thread with a hard deadline: name resolution ignores
socket time-outs, and the Hub client's own retries take much longer than a person waits.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

DEADLINE_S = 4.0
ANY_PAGE = "api/models?limit=1"
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


@cache
def answers(path: str = ANY_PAGE) -> int | None:
    """HTTP status of a HEAD request to the Hub, or None if there was no answer in time."""
    if constants.HF_HUB_OFFLINE or (path != ANY_PAGE and answers() is None):
        return None  # wait for a silent Hub once, not once for each file
    status: list[int] = []
    worker = threading.Thread(target=_ask, args=(path, status), daemon=True)
    worker.start()
    worker.join(DEADLINE_S)
    return status[0] if status else None


def _ask(path: str, status: list[int]) -> None:
    request = urllib.request.Request(f"{constants.ENDPOINT}/{path}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            status.append(response.status)
    except urllib.error.HTTPError as error:
        status.append(error.code)
    except OSError:
        return  # no route, no name, refused: the Hub did not answer


def cached_model(repo_id: str) -> Path | None:
    """Folder of a complete model in the local cache, or None."""
    try:
        folder = Path(snapshot_download(repo_id, allow_patterns=MODEL_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    complete = (folder / "config.json").exists() and any(folder.glob("*.safetensors"))
    return folder if complete else None


def download_model(repo_id: str) -> Path:
    """Fetch config, tokenizer and safetensors of a model; the folder they lie in.

    Raises:
        OSError: if the Hub refuses or the transfer breaks off.
    """
    try:
        return Path(snapshot_download(repo_id, allow_patterns=MODEL_FILES))
    except HfHubHTTPError as error:
        raise OSError(str(error)) from error
