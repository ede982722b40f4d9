"""`ramet train`: train a model."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Train a model.")
