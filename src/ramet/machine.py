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
    total = min(total, *_limits(root)) if _limits(root) else total
    return Memory(total, min(total, found.get("MemAvailable", total)))


def _limits(root: Path) -> list[int]:
    """Of the process's control group and those around it: memory.max (version 2), memory.limit_in_bytes (version 1)."""
    limits = []
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
        group = Path(path.strip().lstrip("/"))
        for each in (group, *group.parents):
            text = "".join(_lines(root / "sys/fs/cgroup" / top / each / name)).strip()
            if text.isdigit():
                limits.append(int(text))
    return limits


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
