"""`python -m spillover.cli`."""

from spillover.cli.main import app

app()
