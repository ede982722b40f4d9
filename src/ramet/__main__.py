"""`python -m ramet` is the `ramet` command."""

from ramet.cli.main import app

app()
