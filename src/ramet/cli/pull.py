"""`ramet pull`: bring a checkpoint here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ramet.cli.output import console, messages


def pull(
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The model on the hub.")],
    source: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Copy from this folder instead of the hub, checked the same way."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit. (default: main)")] = None,
) -> None:
    """Fetch a model from the Hugging Face hub and check that it is whole.

    [bold]ramet pull Qwen/Qwen3.5-0.8B[/]   then: ramet chat --model Qwen/Qwen3.5-0.8B

    [bold]ramet pull Qwen/Qwen3.5-0.8B --source /mnt/usb/Qwen3.5-0.8B[/]   from a folder
    """
    from ramet.models import hub

    messages.print(f"Fetching {name} from {source or 'the hub'} ...", style="dim", markup=False)
    path = hub.pull(name, source=source, revision=revision)
    console.print(f"{name} is in {path}", markup=False, soft_wrap=True)
    messages.print(f"Talk to it: ramet chat --model {name}", style="dim")
