"""The command line: it reads what a person wants, hands it on, and shows what came out."""

from spillover.cli.main import app

__all__ = ["app"]
