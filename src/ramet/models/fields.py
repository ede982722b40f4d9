"""Reading a checkpoint's JSON files field by field, with errors that name the file and the field."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ramet.models.errors import CheckpointError

_MOST = {"num_hidden_layers": 10_000}
_MOST |= dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts"), 100_000)
_MOST |= dict.fromkeys(("head_dim", "rotary_dim", "qk_rope_head_dim"), 1 << 20)
"""What is counted one by one before any weight is looked for: layers, experts, and frequencies."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint. Raises CheckpointError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path.parent}: no {path.name}. Give the folder of a checkpoint in the published layout "
            "(config.json, model.safetensors, tokenizer.json, ...)."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise CheckpointError(f"{path}: not valid JSON (nested too deeply)") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}). Is the download complete?") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


class Fields:
    """The fields of one JSON object; `source` says where it is, for errors, which are CheckpointErrors."""

    def __init__(self, values: Mapping[str, Any], source: str, refused: list[str] | None = None) -> None:
        """`refused`: a list that takes what would be refused, for readers that want to know the sizes all the same."""
        self.values = values
        self.source = source
        self.refused = refused

    def get(self, name: str, default: Any = None) -> Any:
        """The field as it is."""
        return self.values.get(name, default)

    def integer(self, name: str, default: int | None = None) -> int:
        """A positive integer; missing, or null, is an error unless there is a default."""
        value = self._found(name, default)
        if value is None:
            raise CheckpointError(f"{self.source}: {name} is missing")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"{self.source}: {name} must be a positive integer, not {value!r}")
        if value > _MOST.get(name, (1 << 31) - 1):
            raise CheckpointError(f"{self.source}: {name} is {value}; no model is that large")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number; missing, or null, is an error unless there is a default."""
        value = self._found(name, default)
        if value is None:
            raise CheckpointError(f"{self.source}: {name} is missing")
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
            raise CheckpointError(f"{self.source}: {name} must be a positive number, not {value!r}")
        return float(value)

    def count(self, name: str, default: int = 0) -> int:
        """A whole number that may be 0."""
        return 0 if self._found(name, default) == 0 else self.integer(name, default)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._found(name, default)
        if value not in (True, False):
            raise CheckpointError(f"{self.source}: {name} must be true or false, not {value!r}")
        return bool(value)

    def words(self, name: str) -> tuple[str, ...]:
        """A list of words, as one for each layer; empty if it is missing."""
        value = self._found(name, [])
        if not isinstance(value, list):
            raise CheckpointError(f"{self.source}: {name} must be a list, not {value!r}")
        return tuple(map(str, value))

    def _found(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        return default if value is None else value

    def object(self, name: str) -> Fields:
        """An object inside this one."""
        value = self.values.get(name)
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{self.source}: {name} must be an object, not {value!r}")
        return Fields(value, f"{self.source}: {name}", self.refused)

    def must_be(self, name: str, value: Any) -> None:
        """A field that, if it is there and not null, has the one value that is supported."""
        if (found := self._found(name, value)) != value:
            self.refuse(name, f"{found!r}; only {value!r} is supported")

    def refuse(self, name: str, why: str) -> None:
        """Refuse a field whose value asks for what is not computed here: an error, unless errors are collected."""
        error = CheckpointError(f"{self.source}: {name}: {why}")
        if self.refused is None:
            raise error
        self.refused.append(str(error))
