"""Upload: a pruned folder as a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.utils.sha import git_hash

from pruning_kit.errors import ExportError, first_line
from pruning_kit.export.recipe import RECIPE_FILE
from pruning_kit.inputs import hub
from pruning_kit.printable import quoted

MADE_BY_THE_HUB = ".gitattributes"
"""In every repository."""


def new_repository(name: str, public: bool, begun: Path | None = None) -> str:
    """The whole name of a repository that can be made; nothing is made yet.

    Args:
        name: `user/name`, or a name for the user that the token belongs to.
        public: whether everybody may read it.
        begun: a folder that a stopped command may have made a repository of.

    Raises:
        ExportError: if no repository can have that name, there is one, the Hub does not answer, or
            it does not know who asks.
    """
    if not hub.is_repo_id(name):
        raise _refusal(name, "no repository of the Hub can have that name. Write user/name")
    if get_token() is None:
        raise _refusal(name, "no token is known. Log in with hf auth login, or set HF_TOKEN")
    if reason := hub.silence():
        raise _refusal(name, f"{reason}. Push later with hf upload")
    api = HfApi()
    try:
        whole = name if "/" in name else f"{api.whoami()['name']}/{name}"
        taken = api.repo_exists(whole) and not (begun and _is_of(begun, whole, public, api))
    except Exception as error:  # its own kinds and those of its HTTP client
        raise _refusal(name, f"{first_line(error)}. Check the token and the network") from error
    if taken:
        raise _refusal(name, f"there is a repository {whole} already. Give another name")
    return whole


def _is_of(folder: Path, repository: str, public: bool, api: HfApi) -> bool:
    """Whether a repository may be the one that `upload` made of a folder: still empty, or filled.

    All files are put into it at once.
    """
    found = api.model_info(repository, files_metadata=True)
    blobs = {file.rfilename: file.blob_id for file in found.siblings or ()}
    blobs.pop(MADE_BY_THE_HUB, None)
    is_filled = blobs.get(RECIPE_FILE) == git_hash((folder / RECIPE_FILE).read_bytes())
    return found.private is not public and (is_filled or not blobs)


def upload(folder: Path, repository: str, public: bool, message: str, goes_on: bool = False) -> str:
    """Make a repository and put a folder into it; its address.

    Args:
        folder: as `export` wrote it.
        repository: from `new_repository`.
        public: whether everybody may read it.
        message: of the commit.
        goes_on: whether the repository may be there, as `new_repository` found it.

    Raises:
        ExportError: if the Hub refuses or the transfer breaks off; the folder stays.
    """
    api = HfApi()
    try:
        address = api.create_repo(repository, private=not public, exist_ok=goes_on)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except Exception as error:  # its own kinds and those of its HTTP client
        raise _refusal(
            repository,
            f"{first_line(error)}. The folder is whole; push it with hf upload "
            f"{repository} {quoted(str(folder))}",
        ) from error
    return str(address)


def _refusal(name: str, reason: str) -> ExportError:
    return ExportError(f"cannot push to {name!r:.100} on the Hub: {reason}.")
