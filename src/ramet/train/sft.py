"""Supervised fine-tuning, or training from scratch: `ramet train sft`.

A run is a folder. `state.pt` in it holds everything that the next step depends on (weights, optimisers, the number of
the next document), replaced atomically; the same command on the same folder goes on where it stopped, and ends with the
same weights as a run that was never interrupted. `log.jsonl` has a line per reported step.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from ramet.errors import RametError
from ramet.models.qwen3_5 import Qwen3_5
from ramet.train.optim import optimisers
from ramet.train.packing import IGNORED, Batch, Document, pack


class TrainingError(RametError):
    """A training run that cannot start or go on as asked."""


@dataclass(frozen=True)
class Schedule:
    """How long to train and how fast: a linear warm-up, then a cosine down to a tenth of the learning rate."""

    steps: int
    lr: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.05
    optimizer: Literal["adamw", "muon"] = "muon"
    precision: Literal["float32", "bf16"] = "float32"
    rows: int = 16
    """Rows per step."""
    length: int = 256
    """Tokens per row."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    save_every: int = 200
    report_every: int = 20

    def lr_at(self, step: int) -> float:
        """The learning rate of step number `step`, from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class Documents(Protocol):
    """A stream of documents that can be entered anywhere: document `number` depends on nothing but its number."""

    def __call__(self, number: int) -> Document: ...


def train(
    model: Qwen3_5,
    documents: Documents,
    schedule: Schedule,
    run: Path,
    *,
    every_save: Callable[[int], None] | None = None,
) -> list[float]:
    """Train `model` in place; returns the loss of each step run now (mean over the learnt tokens, in nats).

    Saves to `run` every `save_every` steps and at the end. Ctrl-C lets the step at hand end, saves, and then raises
    KeyboardInterrupt.
    `every_save` is called with the step's number after each save. Raises TrainingError if `run` holds another run.
    """
    run.mkdir(parents=True, exist_ok=True)
    optims = optimisers(model, schedule.optimizer, lr=schedule.lr, weight_decay=schedule.weight_decay)
    step, number = _resume(run, model, optims, schedule)
    losses: list[float] = []
    log_file = (run / "log.jsonl").open("a")
    columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
    progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn())
    with log_file, progress, _interrupts_between_steps() as interrupted:
        bar = progress.add_task("", total=schedule.steps, completed=step)
        since, learnt = time.monotonic(), 0
        while step < schedule.steps:
            batch, number = pack(documents, number, schedule.rows, schedule.length)
            losses.append(_step(model, optims, batch, schedule, step))
            step, learnt = step + 1, learnt + batch.tokens.numel()
            if step % schedule.report_every == 0 or step == schedule.steps:
                recent = losses[-schedule.report_every :]
                rate = learnt / (time.monotonic() - since)
                loss = sum(recent) / len(recent)
                line = {"step": step, "loss": round(loss, 5), "lr": schedule.lr_at(step - 1), "documents": number}
                log_file.write(json.dumps(line | {"tokens_per_second": round(rate)}) + "\n")
                log_file.flush()
                progress.update(bar, description=f"loss {loss:.4f}, {rate:,.0f} tokens/s")
                since, learnt = time.monotonic(), 0
            progress.update(bar, completed=step)
            if step % schedule.save_every == 0 or step == schedule.steps or interrupted():
                _save(run, model, optims, schedule, step, number)
                if every_save is not None:
                    every_save(step)
            if interrupted():
                raise KeyboardInterrupt
    return losses


@contextmanager
def _interrupts_between_steps() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C only sets what the yielded function returns: half a step must never be saved."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # signals only reach the main thread
        return
    before = signal.signal(signal.SIGINT, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _step(model: Qwen3_5, optims: list[torch.optim.Optimizer], batch: Batch, schedule: Schedule, step: int) -> float:
    at = batch.targets != IGNORED
    if not bool(at.any()):
        raise TrainingError("a whole batch has nothing to learn: do the conversations have replies of the assistant?")
    with torch.autocast("cpu", torch.bfloat16, enabled=schedule.precision == "bf16"):
        logits = model.train_forward(batch.tokens, batch.segments, batch.positions, at=at)
    loss = F.cross_entropy(logits.float(), batch.targets[at])
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = schedule.lr_at(step)
        optim.step()
        optim.zero_grad(set_to_none=True)
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(f"the loss of step {step + 1} is {value}: try a lower learning rate")
    return value


def _state_of(model: Qwen3_5, optims: list[torch.optim.Optimizer], schedule: Schedule) -> dict[str, Any]:
    return {
        "weights": model.state_dict(),
        "optimisers": [optim.state_dict() for optim in optims],
        "schedule": asdict(schedule),
    }


def _save(
    run: Path, model: Qwen3_5, optims: list[torch.optim.Optimizer], schedule: Schedule, step: int, number: int
) -> None:
    new = run / "state.pt.new"
    torch.save(_state_of(model, optims, schedule) | {"step": step, "number": number}, new)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(run / "state.pt")


def _resume(run: Path, model: Qwen3_5, optims: list[torch.optim.Optimizer], schedule: Schedule) -> tuple[int, int]:
    """Bring a stopped run's state back; returns the number of the next step and of the next document."""
    file = run / "state.pt"
    if not file.exists():
        return 0, 0
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
    except Exception as error:  # whatever torch makes of a file that is not its own
        raise TrainingError(f"{file} cannot be read ({error}): start in another folder, or delete it") from error
    # How often to save and report may change between starts; what the numbers depend on may not.
    bookkeeping = {"save_every", "report_every"}
    was = {name: value for name, value in state["schedule"].items() if name not in bookkeeping}
    now = {name: value for name, value in asdict(schedule).items() if name not in bookkeeping}
    if was != now:
        changed = ", ".join(f"{n} was {was.get(n)} and is now {now.get(n)}" for n in now if was.get(n) != now.get(n))
        raise TrainingError(f"{run} holds a run with other settings ({changed}): give the same, or another folder")
    weights: dict[str, Tensor] = state["weights"]
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if own != {name: tensor.shape for name, tensor in weights.items()}:
        raise TrainingError(f"{run} holds a run of a model of another shape: start in another folder")
    model.load_state_dict(weights)
    for optim, saved in zip(optims, state["optimisers"], strict=True):
        optim.load_state_dict(saved)
    return int(state["step"]), int(state["number"])
