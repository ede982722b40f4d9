"""`ramet serve`: the HTTP server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ramet.cli.output import as_option, messages, parse_size
from ramet.cli.places import ModelOption, find_model, trees

_EXAMPLE = """
Ask it:

  curl {url}/v1/chat/completions -H 'content-type: application/json' {header}\\
    -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'

or from Python, with the client that you have:

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{key}")
  client.responses.create(model="{name}", input="Hello")

Anthropic's client takes base_url="{url}". Stop with Ctrl-C.
"""


def serve(
    model: ModelOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="The model's name for clients. (default: ORG/NAME, or the folder's)")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="RAMET_API_KEY", show_envvar=True, help="Key that every client must send.")
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Where sessions survive a restart. (default: a folder in RAMET_HOME)"),
    ] = None,
    memory_only: Annotated[bool, typer.Option("--memory-only", help="Write no sessions to disk.")] = False,
    memory: Annotated[
        int, typer.Option(parser=as_option(parse_size), metavar="SIZE", help="Memory for the states of all sessions.")
    ] = "4GiB",  # type: ignore[assignment]  # typer parses the default too
    disk: Annotated[
        int, typer.Option(parser=as_option(parse_size), metavar="SIZE", help="Most that the directory may hold.")
    ] = "20GiB",  # type: ignore[assignment]
    drafts: Annotated[
        int,
        typer.Option(min=0, max=8, help="Tokens to guess in a step, where the model can (MTP): replies stay the same."),
    ] = 1,
    memory_store: Annotated[
        str | None,
        typer.Option("--memory-store", metavar="FILE|URL", help="Serve a memory too, under /v1/memory."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. (default: one a core)")] = None,
) -> None:
    """Serve a model over HTTP: OpenAI Chat Completions and Responses, Anthropic Messages.

    Every answer's usage tells the tokens that were reused, and where a request left the tree and why.

    [bold]ramet serve[/]   the small model, on http://127.0.0.1:8000

    [bold]ramet serve --model Qwen/Qwen3.5-0.8B --directory ~/sessions --memory 8GiB --disk 50GiB[/]
    """
    path = find_model(model)
    from ramet.server.serve import serve as run
    from ramet.server.settings import Settings

    if threads is not None:
        from ramet.kernels import set_threads

        set_threads(threads)
    pulled = model if model is not None and not Path(model).expanduser().is_dir() else None
    settings = Settings(
        path,
        host=host,
        port=port,
        model_name=name or pulled,
        tree_dir=None if memory_only else directory or trees(),
        ram_bytes=memory,
        disk_bytes=disk,
        drafts=drafts,
        api_key=api_key,
        memory_store=memory_store,
    )
    run(settings, ready=lambda url: greet(url, settings.served_name, api_key))


def greet(url: str, name: str, api_key: str | None) -> None:
    """Say where the server listens and how to talk to it."""
    header = "-H 'authorization: Bearer $RAMET_API_KEY' " if api_key else ""
    messages.print(f"[bold green]Serving {name} on {url}[/]")
    messages.print(
        _EXAMPLE.format(url=url, name=name, header=header, key="..." if api_key else "none"),
        markup=False,
        soft_wrap=True,
    )
