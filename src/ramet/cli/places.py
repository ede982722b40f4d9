"""Where things are: the model that a command shall run, and the folder in which sessions survive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import ramet
from ramet.errors import RametError

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="DIR|ORG/NAME", help="Checkpoint folder, or a pulled model. (default: the small one)"
    ),
]
"""`--model` of the commands that run any model; `find_model` takes its value."""


class ModelNotFound(RametError):
    """The model that was asked for is not on this machine."""


def home() -> Path:
    """Ramet's own folder: `RAMET_HOME`, else `$XDG_DATA_HOME/ramet`, else `~/.local/share/ramet`."""
    if chosen := os.environ.get("RAMET_HOME"):
        return Path(chosen).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "ramet"


def trees() -> Path:
    """The folder in which `chat` keeps its sessions, and `tree` looks for them, unless told otherwise."""
    return home() / "tree"


def shipped_model() -> Path:
    """The small table model that comes with the package."""
    return Path(ramet.__file__).parent / "assets" / "table-model"


def find_model(name: str | None) -> Path:
    """The checkpoint folder for `--model`: a folder, `ORG/NAME` pulled earlier, or (None) the model that is shipped.

    Raises ModelNotFound, saying what would bring it here.
    """
    if name is None:
        path = shipped_model()
        if not (path / "config.json").is_file():
            raise ModelNotFound(f"the small model is missing from this installation ({path}); name one with --model")
        return path
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelNotFound(f"{path} holds no checkpoint: there is no config.json in it")
        return path
    if path.exists():
        raise ModelNotFound(f"{path} is a file; --model takes the folder of a checkpoint, or ORG/NAME")
    from ramet.models.hub import local_path

    pulled = local_path(name) if name.count("/") == 1 else None
    if pulled is not None:
        return pulled
    hint = f"; fetch it with: ramet pull {name}" if name.count("/") == 1 and not name.startswith((".", "/")) else ""
    raise ModelNotFound(f"there is no folder {name!r} and no model of that name has been pulled{hint}")
