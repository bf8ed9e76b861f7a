"""``--push``: an exported folder to Hugging Face's hub, through its own client."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from twinray.errors import InputError, TwinrayError

_OURS = ("made_by.json", ".written.jsonl", ".progress.jsonl")


def check_push(name: str) -> None:
    """Refuse before any work what could not be pushed at its end.

    Raises:
        InputError: the client is not installed, or the name is no ``owner/name``.
    """
    if name.count("/") != 1 or not all(name.split("/")):
        raise InputError(
            f"expected --push to be owner/name of a repository of the hub, got {name!r}"
        )
    try:
        importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError("--push needs huggingface_hub: pip install 'twinray[hub]'") from error


def push(folder: Path, name: str, *, private: bool) -> str:
    """Make the repository where it is not there, and upload the folder; the address of the commit.

    Args:
        folder: exported files with their card.
        name: ``owner/name``.
        private: whether a new repository is seen by its owner alone.

    Raises:
        TwinrayError: the hub refuses, or cannot be reached; the files stay in the folder.
    """
    hub = importlib.import_module("huggingface_hub")
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        api.create_repo(name, private=private, exist_ok=True, repo_type="model")
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="Weights and card of twinray export",
            ignore_patterns=list(_OURS),
        )
    except Exception as error:  # whatever network and hub raise
        said = " ".join(str(error).split())[:300]
        raise TwinrayError(
            f"could not push {folder} to {name} ({said}); the files are complete there: log in with `hf auth login` and push again "
            "with --overwrite"
        ) from error
    return str(getattr(done, "commit_url", name))
