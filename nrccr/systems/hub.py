"""A hub of models: saved folders are fetched from it and published on it, by huggingface_hub.

Only the files that a saved folder has are fetched, and none of them is executed.
"""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from nrccr.errors import UserError, first_line

_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_ENCODERS = ("backbone", "image_encoder", "labse")
_ENDINGS = ("json", "txt", "model")
FETCHED = [
    *("config.yaml", "model.safetensors", "run.json", "README.md"),
    *(f"{folder}/*.{ending}" for folder in _ENCODERS for ending in _ENDINGS),
]


def is_hub_name(place: str) -> bool:
    """Whether a text is `owner/name` of a hub, and not the path of something here: a folder `owner` makes it one."""
    path = Path(place)
    return _NAMED.fullmatch(place) is not None and not path.exists() and not path.parent.exists()


def require_hub_name(name: str) -> None:
    """Make sure that a text can be a model's name on a hub.

    Raises:
        UserError: it cannot.
    """
    if not isinstance(name, str) or not _NAMED.fullmatch(name):
        raise UserError(f"repo_id={name!r}: give owner/name, in letters, digits, ., - and _")


def fetch(name: str, revision: str | None = None) -> Path:
    """The folder of a model on a hub, in the cache of this machine.

    Args:
        name: `owner/name`.
        revision: branch, tag or commit; none is the newest.

    Raises:
        UserError: no such model, no access, or no connection and none in the cache.
    """
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FETCHED))
    except Exception as error:  # of the network, of the hub, of the cache
        raise UserError(
            f"{name}: no such folder here, and none from the hub ({type(error).__name__}: {first_line(error)}); check "
            "the path, or the name and your access there"
        ) from error


def publish(folder: Path, name: str, *, private: bool) -> None:
    """Upload a saved folder as one commit, into a repository that is made if it is missing.

    Files of a model that was there before and this one lacks are deleted; others stay.

    Args:
        folder: what `save_pretrained` wrote.
        name: `owner/name`.
        private: whether a new repository is hidden from others; one that is there stays as it is.

    Raises:
        UserError: no access, or no connection.
    """
    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="Upload a model of nrccr",
            allow_patterns=FETCHED,
            delete_patterns=FETCHED,  # what an earlier model had and this one lacks would be read with it
        )
    except Exception as error:  # of the network or of the hub
        raise UserError(
            f"{name}: not uploaded ({type(error).__name__}: {first_line(error)}); {folder} is written, log in with "
            "`hf auth login` and try again"
        ) from error
