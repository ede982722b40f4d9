"""The `ramet` command. Each command is a module here; none imports torch before it is run."""

from __future__ import annotations

import errno
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ramet import __version__
from ramet.cli import ask, chat, inspect, memory, pull, serve, train, tree
from ramet.cli.output import console, show_error
from ramet.errors import RametError

_OUT_OF_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing to an open file may meet; such an error names no file."""


class _Commands(TyperGroup):
    """Shows what the user can act on as a message; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RametError as error:
            show_error(str(error))
            raise typer.Exit(1) from error
        except OSError as error:
            if error.errno in _OUT_OF_ROOM and error.filename is None:
                show_error(f"cannot write: {error.strerror}")
            elif error.errno == errno.EPIPE or error.filename is None:
                raise
            else:
                show_error(f"{error.filename}: {error.strerror}")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Open-weight agent models on your own hardware, served from one tree of sessions: "
    "fork them, take them back, close the laptop, go on tomorrow.",
    epilog="Start with [bold]ramet ask table.csv 'how many rows are there?'[/], which needs no download.",
)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"ramet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that stand before any command."""


app.command("ask")(ask.ask)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.add_typer(tree.app, name="tree")
app.add_typer(memory.app, name="memory")
app.command("pull")(pull.pull)
app.command("inspect")(inspect.inspect)
app.add_typer(train.app, name="train")
