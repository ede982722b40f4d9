"""Checkpoint folders: `config.json`, and weights in safetensors files with or without an index.

The files are read by their format's definition: eight bytes with the header's length, a JSON header that gives each
tensor's dtype, shape and place, then the bytes. All of the header is checked before any tensor is read, so a file that
was cut off or is something else is refused at once, by name.
"""

from __future__ import annotations

import json
import math
import mmap
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ramet.models.errors import CheckpointError
from ramet.models.fields import read_json
from ramet.models.quantization import Part

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_WHOLE = {"I32": torch.int32, "I64": torch.int64}
_CODES = {"F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu, "I8": torch.int8, "U8": torch.uint8}
_SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, "F64": 8}
_SIZES |= {"F16": 2, "BF16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
_HEADER_LIMIT = 100_000_000
_UNSAID = "quantised, but config.json does not say so: it has no quantization_config, or one that leaves this out"


@dataclass(frozen=True)
class Entry:
    """One tensor of a safetensors file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Bytes from the beginning of the file."""
    bytes: int


class Weights:
    """The tensors of a checkpoint folder, by name. Opening reads and checks the headers; `read` reads one tensor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._maps: dict[Path, mmap.mmap] = {}
        index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
        if index.is_file():
            self.entries = _read_index(index)
        elif single.is_file():
            self.entries = read_header(single)
        else:
            raise CheckpointError(f"{folder}: no model.safetensors and no {index.name}{_others(folder)}")

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def has_matrix(self, name: str) -> bool:
        """Whether the matrix `....weight` is there, in whatever format."""
        return name in self.entries or _packed(name) in self.entries

    def expect(self, name: str, shape: Iterable[int], *, whole: bool = False) -> Entry:
        """The entry of a tensor that must be there with this shape and a float dtype (`whole`: an integer one).

        Raises CheckpointError.
        """
        shape = tuple(shape)
        entry = self.entries.get(name)
        if entry is None:
            where = next(iter(self.entries.values())).file if self.entries else self.folder
            where = where if len({entry.file for entry in self.entries.values()}) == 1 else self.folder
            hint = f" ({_packed(name)} is there: {_UNSAID})" if self.has_matrix(name) else ""
            raise CheckpointError(f"{where}: tensor {name} is missing; config.json asks for it, {list(shape)}{hint}")
        if whole and entry.dtype not in _WHOLE:
            raise CheckpointError(f"{entry.file}: tensor {name} has dtype {entry.dtype}; expected I32 or I64")
        if not whole and entry.dtype not in _DTYPES:
            hint = "" if entry.dtype == "F64" else f": {_UNSAID}"
            raise CheckpointError(
                f"{entry.file}: tensor {name} has dtype {entry.dtype}; expected BF16, F16 or F32{hint}"
            )
        if entry.shape != shape:
            raise CheckpointError(
                f"{entry.file}: tensor {name} has shape {list(entry.shape)}; config.json makes it {list(shape)}"
            )
        return entry

    def expect_part(self, part: Part) -> Entry:
        """The entry of one tensor of a quantised matrix. Raises CheckpointError."""
        entry = self.entries.get(part.name)
        if entry is None:
            other = _packed(part.name) if part.name.endswith(".weight") else part.name.removesuffix("_packed")
            hint = f" ({other} is there: in another format than quantization_config says)" if other in self else ""
            raise CheckpointError(
                f"{self.folder}: tensor {part.name} is missing; by quantization_config the matrix is quantised and "
                f"needs it, {part.dtypes[0]} {list(part.shape)}{hint}"
            )
        if entry.dtype not in part.dtypes or entry.shape != part.shape:
            raise CheckpointError(
                f"{entry.file}: tensor {part.name} is {entry.dtype} {list(entry.shape)}; "
                f"quantization_config makes it {' or '.join(part.dtypes)} {list(part.shape)}"
            )
        return entry

    def map(self, name: str) -> Tensor:
        """A tensor as it lies in its file: mapped, read when it is used, given back when memory is short. Read only.

        The file must not be changed while the tensor lives. Nothing says that it begins where a number of its size
        usually may.
        """
        entry = self.entries[name]
        if (mapped := self._maps.get(entry.file)) is None:
            try:
                with entry.file.open("rb") as file:
                    mapped = self._maps[entry.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{entry.file}: cannot be mapped ({error})") from error
        if entry.start + entry.bytes > len(mapped):
            raise CheckpointError(f"{entry.file}: ends inside tensor {name}; the file changed while it was read")
        dtype = (_DTYPES | _WHOLE | _CODES)[entry.dtype]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            data = torch.frombuffer(mapped, dtype=torch.uint8, count=entry.bytes, offset=entry.start)
        return data.view(dtype).view(entry.shape)

    def read(self, name: str) -> Tensor:
        """A tensor, in a dtype as published, in memory of its own."""
        entry = self.entries[name]
        out = torch.empty(entry.shape, dtype=(_DTYPES | _WHOLE)[entry.dtype])
        if out.numel():
            view = out.reshape(-1).view(torch.uint8).numpy().data
            with entry.file.open("rb", buffering=0) as file:
                file.seek(entry.start)
                done = 0
                while done < entry.bytes:
                    count = file.readinto(view[done:])
                    if not count:
                        raise CheckpointError(
                            f"{entry.file}: ends inside tensor {name}; the file changed while it was read"
                        )
                    done += count
        return out


def _packed(matrix: str) -> str:
    """What the codes of the matrix `....weight` are called in a compressed-tensors checkpoint."""
    return matrix.removesuffix(".weight") + ".weight_packed"


def _others(folder: Path) -> str:
    """What is in a folder in place of weights, as a hint."""
    if shards := sorted(path.name for path in folder.glob("*.safetensors")):
        return f" ({shards[0]} is there, but not the index, which says what is in each file: fetch that too)"
    others = sorted(path.name for pattern in ("*.bin", "*.gguf", "*.pth") for path in folder.glob(pattern))
    return f" ({others[0]} is there, but only safetensors are read)" if others else ""


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file. Raises CheckpointError unless the file is whole and consistent."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            if size == 0:
                raise CheckpointError(f"{path}: the file is empty; fetch it again")
            if prefix == b"version ":
                raise CheckpointError(f"{path}: a Git LFS pointer, not the weights themselves; run `git lfs pull`")
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or not 2 <= length <= _HEADER_LIMIT:
                raise CheckpointError(f"{path}: not a safetensors file (its header would be {length} bytes long)")
            if 8 + length > size:
                raise CheckpointError(
                    f"{path}: cut off inside its header ({size} bytes, the header ends at {8 + length}); fetch it again"
                )
            file.seek(8)
            header = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        tensors = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a safetensors file (its header is no JSON: {error})") from error
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: not a safetensors file (its header is no JSON object)")
    tensors.pop("__metadata__", None)
    entries = {name: _entry(path, name, fields, 8 + length) for name, fields in tensors.items()}
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
        if entry.start != end:
            raise CheckpointError(
                f"{path}: tensor {name} begins at byte {entry.start}; expected at {end}, after the others"
            )
        end += entry.bytes
        if end > size:
            raise CheckpointError(
                f"{path}: cut off inside tensor {name}: {size} bytes of at least {end}; fetch it again"
            )
    if end != size:
        raise CheckpointError(f"{path}: has {size} bytes, but its tensors end at {end}")
    return entries


def _entry(path: Path, name: str, fields: Any, data: int) -> Entry:
    try:
        dtype, shape, (start, end) = fields["dtype"], tuple(fields["shape"]), fields["data_offsets"]
        whole = isinstance(dtype, str) and all(type(size) is int and size >= 0 for size in (*shape, start, end))
    except (TypeError, KeyError, ValueError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"{path}: tensor {name} is described as {fields!r}; expected dtype, shape and data_offsets"
        )
    if dtype not in _SIZES:
        raise CheckpointError(f"{path}: tensor {name} has the unknown dtype {dtype!r}")
    expected = math.prod(shape) * _SIZES[dtype]
    if end - start != expected:
        raise CheckpointError(
            f"{path}: tensor {name} is {dtype} {list(shape)}, {expected} bytes, but takes up {end - start} of the file"
        )
    return Entry(path, dtype, shape, data + start, expected)


def _read_index(index: Path) -> dict[str, Entry]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise CheckpointError(f"{index}: weight_map must be an object from tensor to file name")
    files: dict[str, dict[str, Entry]] = {}
    for name, place in places.items():
        if Path(place).name != place:
            raise CheckpointError(
                f"{index}: tensor {name} is said to be in {place!r}, which is not a file of this folder"
            )
        if place not in files:
            if not (index.parent / place).is_file():
                raise CheckpointError(f"{index.parent / place}: missing; {index.name} says tensor {name} is in it")
            files[place] = read_header(index.parent / place)
        if name not in files[place]:
            raise CheckpointError(
                f"{index.parent / place}: tensor {name} is missing; {index.name} says it is in this file"
            )
    return {name: files[place][name] for name, place in places.items()}
