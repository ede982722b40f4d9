"""The memory that this machine has for a process, as far as Linux tells: the container's, where it is in one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """In bytes."""

    total: int
    available: int
    """What programs can have now without others giving anything up; caches of files count as free."""


def memory(root: Path = Path("/")) -> Memory:
    """Of the machine whose `/proc` and `/sys` are in `root`; a control group's limit, if it is less."""
    found = {}
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        found[name] = 1024 * int(value.split()[0]) if value.split() else 0
    total = found.get("MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    groups = _groups(root)
    total = min([total, *(group.total for group in groups)])
    available = min([found.get("MemAvailable", total), *(group.available for group in groups)])
    return Memory(total, min(total, available))


def _groups(root: Path) -> list[Memory]:
    """The limits of the process's control group and those around it, of version 2 or 1, and what is left of them."""
    found = []
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        top, limit, usage, kind = (
            ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_") if controllers
            else ("", "memory.max", "memory.current", "")
        )  # fmt: skip
        group = Path(path.strip().lstrip("/"))
        for each in (group, *group.parents):
            folder = root / "sys/fs/cgroup" / top / each
            if (most := _number(folder / limit)) is not None:
                used = _number(folder / usage) or 0
                stat = dict(line.split(maxsplit=1) for line in _lines(folder / "memory.stat") if " " in line)
                files = sum(int(stat.get(f"{kind}{age}_file", 0)) for age in ("active", "inactive"))
                found.append(Memory(most, max(0, most - max(0, used - files))))
    return found


def _number(file: Path) -> int | None:
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
