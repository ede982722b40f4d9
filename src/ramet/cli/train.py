"""`ramet train`: train a model."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from ramet.cli.output import console, messages
from ramet.cli.places import find_model

app = typer.Typer(no_args_is_help=True, help="Train a model.")


class _Optimizer(enum.StrEnum):
    MUON = "muon"
    ADAMW = "adamw"


class _Precision(enum.StrEnum):
    FLOAT32 = "float32"
    BF16 = "bf16"


class _Task(enum.StrEnum):
    TABLES = "tables"


@app.callback()
def _group() -> None:
    """Keeps `sft` a command of its own while it is the only one."""


@app.command("sft")
def sft(
    out: Annotated[Path, typer.Argument(file_okay=False, help="Folder for the checkpoint.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help='Conversations, one a line: {"messages": [...]} in OpenAI\'s chat form.'),
    ] = None,
    task: Annotated[
        _Task | None, typer.Option(help="Or what Ramet generates itself: questions about tables (the shipped model's).")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="DIR|ORG/NAME", help="Go on from this checkpoint. (default: from scratch)"
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="Size of a model from scratch: tiny, small or medium.")] = "small",
    steps: Annotated[int, typer.Option(min=1, help="Updates in all, those of earlier starts included.")] = 1000,
    rows: Annotated[int, typer.Option(min=1, help="Packed rows an update.")] = 16,
    length: Annotated[int, typer.Option(min=16, help="Tokens a row.")] = 512,
    optimizer: Annotated[_Optimizer, typer.Option(help="How weights are updated.")] = _Optimizer.MUON,
    lr: Annotated[
        float | None, typer.Option(min=0.0, help="Peak learning rate. (default: the optimizer's usual)")
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Updates up to the peak.")] = 50,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Pull of the weights towards zero.")] = 0.01,
    precision: Annotated[_Precision, typer.Option(help="Of the matrix products.")] = _Precision.FLOAT32,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Updates between two saved states.")] = 100,
) -> None:
    """Supervised fine-tuning, or training from scratch, of a Qwen3.5 model.

    The replies of the assistant are learnt, all else is read. Ctrl-C saves; the same command goes on from there.

    [bold]ramet train sft runs/tables --task tables --preset tiny --steps 200[/]

    [bold]ramet train sft runs/mine --data talks.jsonl --model Qwen/Qwen3.5-0.8B --optimizer adamw --lr 1e-5[/]
    """
    start = find_model(model) if model is not None else None
    from ramet.train.sft import SftConfig, run

    config = SftConfig(
        out=out,
        data=data,
        task="tables" if task is _Task.TABLES else None,
        model=start,
        preset=preset,
        optimizer=optimizer.value,
        precision=precision.value,
        steps=steps,
        seed=seed,
        lr=lr or 0.0,
        weight_decay=weight_decay,
        rows=rows,
        length=length,
        warmup=warmup,
        checkpoint_every=checkpoint_every,
    )
    try:
        path = run(config)
    except KeyboardInterrupt:
        if (out / "training" / "state.pt").exists():
            messages.print(f"Stopped; saved in {out / 'training'}. The same command goes on from there.", markup=False)
        raise
    console.print(f"The checkpoint is in {path}", markup=False, soft_wrap=True)
