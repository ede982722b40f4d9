"""Models by name: fetching them from the Hugging Face hub, or from a folder, into the hub's own cache."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors

from ramet.errors import RametError
from ramet.models import CheckpointError, check

_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "encoding/encoding_dsv4.py",  # its words for efforts of reasoning are read, nothing in it is run
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "model.safetensors.index.json",
    "model*.safetensors",
    "LICENSE*",
)


class PullError(RametError):
    """A model could not be fetched. Says why and what to do."""


def pull(
    name: str, *, source: str | Path | None = None, revision: str | None = None, cache: str | Path | None = None
) -> Path:
    """Fetch the model `ORG/NAME` into the hub's cache and return the folder that it is in.

    Only what is needed to run it is fetched. What an earlier, interrupted call fetched is not fetched again. `source`
    is a local folder to copy from instead: a checkpoint's folder, or one that holds models as `ORG/NAME` or as the
    hub's cache does. `cache` is another cache than the user's. The result's config and weight headers are checked.

    Raises PullError if it cannot be fetched, CheckpointError if what came is not a whole, supported checkpoint.
    """
    if not is_name(name):
        raise PullError(f"{name!r} is no name of a model; names on the hub look like Qwen/Qwen3.5-0.8B")
    root = Path(cache) if cache is not None else Path(constants.HF_HUB_CACHE)
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = _download(name, revision, root) if source is None else _copy(name, Path(source), revision, root)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(root).free
            raise PullError(
                f"{name}: the disk of {root} is full ({free / 1e9:.1f} GB left). Make room, or set HF_HOME to a folder "
                "on another disk, and pull again; what has been fetched is kept."
            ) from error
        raise PullError(f"{name}: cannot write to {error.filename or root} ({error.strerror or error})") from error
    check(folder)
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder}: no tokenizer.json: {name} has weights, but nothing to turn text into tokens")
    return folder


def is_name(name: str) -> bool:
    """Whether this can be a model's name on the hub, `ORG/NAME`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def config(name: str, folder: Path) -> Path:
    """Fetch the `config.json` of the model `ORG/NAME` alone, a few kB, into `folder/ORG/NAME`; returns its path.

    What is asked of it is asked before a model is pulled. Raises PullError.
    """
    otherwise = "give the path of a config.json that is here"
    with _explained(name, None, otherwise):
        try:
            return Path(huggingface_hub.hf_hub_download(name, "config.json", local_dir=folder / name))
        except errors.EntryNotFoundError as error:
            if isinstance(error, errors.LocalEntryNotFoundError):
                raise
            raise PullError(f"{name} has no config.json on the hub, so nothing says what it is.") from error
        except OSError as error:
            if isinstance(error, errors.HfHubHTTPError):
                raise
            raise PullError(
                f"{name}: cannot write to {error.filename or folder} ({error.strerror or error})"
            ) from error


def local_path(name: str, *, revision: str | None = None, cache: str | Path | None = None) -> Path | None:
    """The folder of the model `ORG/NAME` if it has been pulled, else None. Touches no network."""
    try:
        file = huggingface_hub.try_to_load_from_cache(name, "config.json", cache_dir=cache, revision=revision)
    except errors.HFValidationError:
        return None
    return Path(file).parent if isinstance(file, str) else None


def _download(name: str, revision: str | None, root: Path) -> Path:
    with _explained(name, revision, f"copy the model from a folder with `ramet pull {name} --source FOLDER`"):
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, cache_dir=root, allow_patterns=list(_FILES))
        )


@contextmanager
def _explained(name: str, revision: str | None, otherwise: str) -> Iterator[None]:
    """The hub's refusals become PullErrors; `otherwise` is what to do where it cannot be reached."""
    try:
        yield
    except errors.GatedRepoError as error:
        raise PullError(
            f"{name} asks for its terms to be accepted: open https://huggingface.co/{name}, accept them, then log in "
            "here with `hf auth login` (or set HF_TOKEN) and pull again."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise PullError(f"{name} has no revision {revision!r} on the hub.") from error
    except errors.RepositoryNotFoundError as error:
        raise PullError(
            f"There is no model {name} on the hub, or it is private. Check the spelling at "
            "https://huggingface.co/models; for a private one log in with `hf auth login` (or set HF_TOKEN)."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise PullError(
            f"{name}: the hub cannot be reached. Check the network (and HF_HUB_OFFLINE), or {otherwise}."
        ) from error
    except errors.HfHubHTTPError as error:
        raise PullError(
            f"{name}: the hub answered with an error ({error}). Try again; what has come is kept."
        ) from error
    except (errors.HFValidationError, errors.XetDownloadError) as error:
        raise PullError(f"{name}: {error}") from error


def _copy(name: str, source: Path, revision: str | None, root: Path) -> Path:
    """Copy a checkpoint into the cache as one revision; files that are there whole are not copied again."""
    origin = _find(name, source, revision)
    files = sorted({path for pattern in _FILES for path in origin.glob(pattern) if path.is_file()})
    digest = hashlib.sha1(usedforsecurity=False)
    for path in files:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
    repository = root / f"models--{name.replace('/', '--')}"
    commit = origin.name if origin.parent.name == "snapshots" else digest.hexdigest()
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        target = folder / path.name
        if not (target.is_file() and target.stat().st_size == path.stat().st_size):
            part = target.with_name(target.name + ".part")
            shutil.copyfile(path, part)
            part.replace(target)
    reference = repository / "refs" / (revision or "main")
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    return folder


def _find(name: str, source: Path, revision: str | None) -> Path:
    """The checkpoint folder that `source` has for `name`: itself, `ORG/NAME` in it, or the hub's layout in it."""
    cached = source / f"models--{name.replace('/', '--')}"
    candidates = [source, source / name]
    reference = cached / "refs" / (revision or "main")
    if reference.is_file():
        candidates.append(cached / "snapshots" / reference.read_text().strip())
    if revision:
        candidates.append(cached / "snapshots" / revision)
    elif cached.is_dir():
        candidates += sorted(cached.glob("snapshots/*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in candidates:
        if (folder / "config.json").is_file():
            return folder
    raise PullError(
        f"{source} has no model {name}: there is no config.json in it, in {source / name}, or in {cached}/snapshots/*"
    )
