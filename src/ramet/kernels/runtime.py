"""Which instruction set runs, on how many threads, and the name of the build."""

from __future__ import annotations

from ramet import _ramet


def build_id() -> str:
    """Names the compiled kernels and the instruction set in use; states computed under another id have other bits."""
    return _ramet.build_id()


def isa() -> str:
    """The instruction set in use: `avx512`, `avx2` or `portable`."""
    return _ramet.isa()


def available_isas() -> list[str]:
    """What this machine can run, best first. `RAMET_ISA` in the environment chooses at start."""
    return _ramet.available_isas()


def set_isa(name: str) -> None:
    """Use another instruction set from the next op on. `ValueError` if this machine cannot run it."""
    _ramet.set_isa(name)


def threads() -> int:
    """How many threads an op may use, the caller's included."""
    return _ramet.threads()


def set_threads(count: int) -> None:
    """Use `count` threads (at least 1) from the next op on. The results do not depend on it."""
    _ramet.set_threads(count)
