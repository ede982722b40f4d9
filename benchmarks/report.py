"""What every benchmark shares: the machine in words, the table that it prints and the file that `--json` writes."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured figure."""

    name: str
    value: float
    unit: str
    target: str = ""
    peer: str = ""
    note: str = ""


def machine() -> str:
    """Processor, cores and the versions that a figure depends on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}"


def report(title: str, figures: Sequence[Figure], json_file: Path | None) -> None:
    """Print the figures as a table under the machine's name, and write them to `json_file` if one is given."""
    table = Table(title=f"{title}\n[dim]{machine()}[/dim]", title_justify="left")
    for column in ("name", "value", "unit", "target", "peer", "note"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for figure in figures:
        table.add_row(figure.name, f"{figure.value:,.4g}", figure.unit, figure.target, figure.peer, figure.note)
    Console().print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
