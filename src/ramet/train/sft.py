"""Supervised fine-tuning, from scratch or from a checkpoint: what `ramet train sft` runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ramet.errors import RametError
from ramet.models.decoder import Decoder
from ramet.models.loading import load_trainable, save
from ramet.models.qwen3_5 import Qwen3_5
from ramet.models.qwen3_5_config import Qwen3_5Config
from ramet.train.data import Conversations, Tables, prefetch, read_conversations, table_texts
from ramet.train.optim import make_optimizers
from ramet.train.packing import Batch
from ramet.train.tokenizer import train_tokenizer, write_tokenizer

TABLE_TEMPLATE = files("ramet.train").joinpath("table_template.jinja").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Sizes:
    """A model to start from scratch; every `full_every`-th layer is full attention, the others are delta rules."""

    hidden: int
    layers: int
    full_every: int
    mlp: int
    heads: int
    head_dim: int
    delta_heads: int
    key_dim: int
    value_dim: int
    vocab: int


PRESETS = {
    "tiny": Sizes(64, 4, 4, mlp=128, heads=2, head_dim=32, delta_heads=2, key_dim=16, value_dim=32, vocab=1024),
    "small": Sizes(192, 6, 3, mlp=512, heads=4, head_dim=48, delta_heads=4, key_dim=32, value_dim=48, vocab=3072),
    "medium": Sizes(256, 8, 4, mlp=640, heads=4, head_dim=64, delta_heads=4, key_dim=32, value_dim=64, vocab=4096),
}


class TrainError(RametError):
    """Training that cannot start or go on; the message says why."""


@dataclass(frozen=True)
class SftConfig:
    """One run. Everything but `out` and the intervals decides the result, bit for bit on one machine."""

    out: Path
    """The folder of the finished checkpoint; `out/training` keeps what a resumed run needs, and the log."""
    data: Path | None = None
    """Conversations as JSON lines; or `task`."""
    task: Literal["tables"] | None = None
    model: Path | None = None
    """A checkpoint to continue from; None starts from scratch with `preset`."""
    preset: str = "small"
    optimizer: Literal["muon", "adamw"] = "muon"
    precision: Literal["float32", "bf16"] = "float32"
    steps: int = 1000
    seed: int = 0
    lr: float = 0.0
    """Peak learning rate; 0 takes the optimizer's usual one."""
    weight_decay: float = 0.01
    rows: int = 16
    length: int = 512
    warmup: int = 50
    checkpoint_every: int = 100
    log_every: int = 10

    @property
    def rate(self) -> float:
        return self.lr or {"muon": 0.02, "adamw": 0.002}[self.optimizer]


def run(config: SftConfig) -> Path:
    """Train, resuming if `out/training` holds a state of the same run. Returns the folder of the checkpoint.

    Ctrl-C saves a state and raises KeyboardInterrupt; the same call goes on from there.
    """
    _check(config)
    training = config.out / "training"
    training.mkdir(parents=True, exist_ok=True)
    _same_run(config, training)
    model = _begin(config)
    optimizers = make_optimizers(model, config.optimizer, config.rate, config.weight_decay)
    done = _resume(training, model, optimizers)
    log = _Log(training / "log.jsonl", done)
    source: tuple[Any, ...] = (Conversations, config.out, config.data) if config.data else (Tables, config.out)
    batches = prefetch(*source, start=done, stop=config.steps, seed=config.seed, rows=config.rows, length=config.length)
    with _interruptible() as interrupted, _progress() as progress:
        bar = progress.add_task("training", total=config.steps, completed=done, loss="", speed="")
        for step, batch in enumerate(batches, done):
            started = time.monotonic()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group.setdefault("peak", group["lr"]) * _schedule(step, config)
            loss, right = train_step(model, optimizers, batch, config.precision)
            seconds = time.monotonic() - started
            if not loss == loss:
                raise TrainError(f"step {step}: the loss is not a number; lower --lr (it was {config.rate:g})")
            if step % config.log_every == 0 or step == config.steps - 1:
                speed = batch.tokens.numel() / seconds
                log.write(step=step, loss=round(loss, 5), right=round(right, 4), tokens_per_second=round(speed))
                progress.update(bar, loss=f"loss {loss:.3f}", speed=f"{speed:,.0f} tokens/s")
            progress.update(bar, completed=step + 1)
            if interrupted() or (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                _save_state(training, step + 1, model, optimizers)
            if interrupted():
                log.close()
                raise KeyboardInterrupt
    log.close()
    save(model, config.out, dtype=torch.bfloat16)
    return config.out


def train_step(
    model: Decoder, optimizers: list[torch.optim.Optimizer], batch: Batch, precision: str = "float32"
) -> tuple[float, float]:
    """One update on one batch. Returns the mean loss and the share of target tokens that were the likeliest."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model.train_forward(batch.tokens, batch.segments, batch.positions, at=batch.at)
    loss = F.cross_entropy(logits.float(), batch.targets)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    right = (logits.detach().argmax(-1) == batch.targets).float().mean()
    return loss.item(), right.item()


def _schedule(step: int, config: SftConfig) -> float:
    """Linear warmup, a constant half, then linearly down to nothing."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    flat = config.steps // 2
    return 1.0 if step < flat else max(0.0, (config.steps - step) / max(1, config.steps - flat))


def _check(config: SftConfig) -> None:
    if (config.data is None) == (config.task is None):
        raise TrainError("give either --data FILE.jsonl or --task tables")
    if config.data is not None:
        read_conversations(config.data)
    if config.model is None and config.preset not in PRESETS:
        raise TrainError(f"there is no preset {config.preset!r}; known are {', '.join(PRESETS)}")
    if config.steps < 1:
        raise TrainError(f"--steps must be at least 1, not {config.steps}")


def _same_run(config: SftConfig, training: Path) -> None:
    """Refuse to resume a run under other settings: the result would be neither the one nor the other."""
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    for name in ("out", "checkpoint_every", "log_every"):
        settings.pop(name)
    file = training / "settings.json"
    if not file.exists():
        file.write_text(json.dumps(settings, indent=2) + "\n")
        return
    before = json.loads(file.read_text())
    changed = [f"{k} {before.get(k)} -> {v}" for k, v in settings.items() if before.get(k) != v]
    if changed:
        raise TrainError(
            f"{training} holds a run with other settings ({'; '.join(changed)}). "
            "Repeat its settings to resume it, or choose another --out."
        )


def _begin(config: SftConfig) -> Decoder:
    """The model before its first step, and the tokenizer's files in `out`."""
    if config.model is not None:
        if config.model.resolve() != config.out.resolve():
            for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
                if (config.model / name).is_file():
                    shutil.copyfile(config.model / name, config.out / name)
        return load_trainable(config.model)
    sizes = PRESETS[config.preset]
    if not (config.out / "generation_config.json").is_file():
        if config.data is not None:
            texts: Iterator[str] = (str(m.get("content", "")) for c in read_conversations(config.data) for m in c)
        else:
            texts = table_texts(TABLE_TEMPLATE, config.seed)
        write_tokenizer(train_tokenizer(texts, sizes.vocab), config.out, TABLE_TEMPLATE)
    return Qwen3_5(model_config(sizes)).initialise(config.seed)


def model_config(sizes: Sizes) -> Qwen3_5Config:
    return Qwen3_5Config(
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        layer_types=tuple(
            "linear_attention" if (i + 1) % sizes.full_every else "full_attention" for i in range(sizes.layers)
        ),
        num_attention_heads=sizes.heads,
        num_key_value_heads=max(1, sizes.heads // 2),
        head_dim=sizes.head_dim,
        linear_num_key_heads=sizes.delta_heads,
        linear_num_value_heads=sizes.delta_heads,
        linear_key_head_dim=sizes.key_dim,
        linear_value_head_dim=sizes.value_dim,
        intermediate_size=sizes.mlp,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        rope_theta=10_000.0,
        partial_rotary_factor=0.5,
    )


def _save_state(training: Path, step: int, model: Decoder, optimizers: list[torch.optim.Optimizer]) -> None:
    """Written beside and moved into place: whenever the process dies, a whole state is there."""
    state = {"step": step, "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    fresh = training / "state.pt.new"
    with fresh.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(training / "state.pt")


def _resume(training: Path, model: Decoder, optimizers: list[torch.optim.Optimizer]) -> int:
    file = training / "state.pt"
    if not file.is_file():
        return 0
    state: dict[str, Any] = torch.load(file, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


class _Log:
    """One JSON object a line; on resuming, lines of steps that will be run again are dropped."""

    def __init__(self, path: Path, done: int) -> None:
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in lines if json.loads(line)["step"] < done]
        path.write_text("".join(f"{line}\n" for line in kept))
        self._file = path.open("a")

    def write(self, **fields: Any) -> None:
        self._file.write(json.dumps(fields) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


@contextmanager
def _interruptible() -> Iterator[Any]:
    """Turns Ctrl-C and a polite kill into a flag that the loop looks at between steps."""
    flag = [False]

    def note(_signal: int, _frame: FrameType | None) -> None:
        flag[0] = True

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: flag[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
