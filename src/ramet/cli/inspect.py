"""`ramet inspect`: what a checkpoint is, and whether it fits this machine, before it is downloaded or loaded."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ramet.cli.output import console, format_size, messages, plural
from ramet.cli.places import ModelNotFound, find_model, home
from ramet.errors import RametError
from ramet.machine import Memory, memory

if TYPE_CHECKING:
    from ramet.models.inspection import Inspection

CONTEXT = 32768
"""Tokens, where the model goes so far and nothing else is asked for."""


def inspect(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", help="A checkpoint's folder, a config.json, or ORG/NAME of a model, pulled or on the hub."
        ),
    ],
    context: Annotated[
        int | None,
        typer.Option(min=1, metavar="TOKENS", help="Length of the session to reckon with. (default: 32768)"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a checkpoint is: its family, parameters, formats, what a session of it takes, whether it fits here.

    Reads its config and the headers of its files; a config.json alone will do, so you can ask before you download: of a
    model on the hub nothing else is fetched.

    [bold]ramet inspect ~/models/Qwen3.5-0.8B[/]

    [bold]ramet inspect zai-org/GLM-5[/]   before you pull it

    [bold]ramet inspect config.json --context 200000[/]   without weights
    """
    path = _find(checkpoint)
    from ramet.models.inspection import inspect as look

    found = look(path)
    longest = found.context_length
    if context is not None and longest is not None and context > longest:
        raise RametError(
            f"{path}: this model goes no further than {plural(longest, 'token')}; --context is {context:,}"
        )
    tokens = context or min(CONTEXT, longest or CONTEXT)
    if as_json:
        typer.echo(json.dumps(_as_json(path, found, tokens, memory()), indent=2))
        return
    console.print(Text(_title(found), "bold"), soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    for name, text in _lines(found, tokens, memory()):
        grid.add_row(Text(name, "dim"), text)
    console.print(Padding(grid, (0, 0, 0, 2), expand=False))


def _find(checkpoint: str) -> Path:
    """A folder or a config.json: here, or fetched from the hub."""
    file = Path(checkpoint).expanduser()
    if file.suffix == ".safetensors" and file.is_file():
        raise RametError(f"{file} holds weights; give the folder that it is in, or the config.json beside it")
    if file.is_file():
        return file
    try:
        return find_model(checkpoint)
    except ModelNotFound:
        from ramet.models import hub

        name = checkpoint.removesuffix("/config.json")
        if file.exists() or not hub.is_name(name):
            raise
    messages.print(f"{name} is not here; fetching its config.json from the hub ...", style="dim", markup=False)
    return hub.config(name, home() / "configs")


def _title(found: Inspection) -> str:
    kind = found.model_type if found.model_type != found.family else None
    title = f"{found.family} ({kind})" if kind else found.family
    if found.layers is None or found.vocab_size is None or found.context_length is None:
        return title
    return (
        f"{title}: {plural(found.layers, 'layer')}, a vocabulary of {found.vocab_size:,}, "
        f"up to {plural(found.context_length, 'token')}"
    )


def _lines(found: Inspection, tokens: int, machine: Memory) -> list[tuple[str, str]]:
    """What is said, and what about."""
    lines = []
    if found.parameters is not None:
        active = found.active_parameters
        some = "" if active in (None, found.parameters) else f", {_count(active)} of them active for a token"
        lines.append(("parameters", _count(found.parameters) + some))
    if found.weight_bytes is not None:
        by = ", ".join(f"{format_size(each.bytes)} {each.name}" for each in found.formats)
        whence = "" if found.weights_here else "; by config.json alone"
        lines.append(("weights", f"{format_size(found.weight_bytes)} ({by}){whence}"))
    lines += [
        ("left out", part.part + ("" if part.bytes is None else f", {format_size(part.bytes)}"))
        for part in found.left_out
    ]
    per_token, fixed, context = found.state_bytes_per_token, found.state_bytes_fixed, found.context_bytes(tokens)
    if per_token is not None and fixed is not None and context is not None:
        rows = [each for each in found.states if each.kind == "rows"]
        others = [each for each in found.states if each.kind != "rows"]
        for name, states, size in (("a token keeps", rows, per_token), ("a session keeps", others, fixed)):
            by = "; ".join(f"{each.name} {_size(each.bytes)} in {plural(each.layers, 'layer')}" for each in states)
            lines.append((name, f"{_size(size)} ({by})" if by else "nothing besides"))
        lines.append((f"{tokens:,} tokens", f"{format_size(context)} of rows and states"))
    lines.append(("this machine", _verdict(_needed(found, tokens), machine)))
    lines += [("not loaded:", reason) for reason in found.reasons]
    return lines


def _verdict(needed: int | None, machine: Memory) -> str:
    has = f"{format_size(machine.total)} of memory, {format_size(machine.available)} of it free"
    if needed is None:
        return f"has {has}; what is needed is not known"
    if needed > machine.total:
        return (
            f"too small: {format_size(needed)} are needed, it has {has}; weights would be read as they are used, slowly"
        )
    short = "" if needed <= machine.available else "; other programs must leave some"
    return f"large enough: {format_size(needed)} are needed, it has {has}{short}"


def _needed(found: Inspection, tokens: int) -> int | None:
    weights, context = found.memory_bytes, found.context_bytes(tokens)
    return None if weights is None or context is None else weights + context


def _as_json(path: Path, found: Inspection, tokens: int, machine: Memory) -> dict[str, Any]:
    needed = _needed(found, tokens)
    return {
        "path": str(path),
        "family": found.family,
        "model_type": found.model_type,
        "loads": not found.reasons,
        "reasons": list(found.reasons),
        "weights_here": found.weights_here,
        "layers": found.layers,
        "vocab_size": found.vocab_size,
        "context_length": found.context_length,
        "parameters": found.parameters,
        "active_parameters": found.active_parameters,
        "weight_bytes": found.weight_bytes,
        "formats": [vars(each) for each in found.formats],
        "left_out": [vars(each) for each in found.left_out],
        "state_bytes_per_token": _number(found.state_bytes_per_token),
        "state_bytes_fixed": found.state_bytes_fixed,
        "states": [vars(each) | {"bytes": _number(each.bytes)} for each in found.states],
        "context": {"tokens": tokens, "bytes": found.context_bytes(tokens)},
        "memory": {
            "total_bytes": machine.total,
            "available_bytes": machine.available,
            "needed_bytes": needed,
            "fits": None if needed is None else needed <= machine.total,
        },
    }


def _number(value: Fraction | None) -> int | float | None:
    return None if value is None else value.numerator if value.denominator == 1 else float(value)


def _size(value: Fraction | int) -> str:
    """Bytes; of a few with a fraction, the fraction too."""
    whole = Fraction(value).denominator == 1 or value >= 1024
    return format_size(int(value)) if whole else f"{float(value):,.1f} B"


def _count(value: int) -> str:
    """A number for people: `743.9 billion`."""
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if value >= size:
            return f"{value / size:,.1f} {word}"
    return f"{value:,}"
