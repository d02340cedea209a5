"""What all requests to providers share: how they are sent, which succeeded, and what is known of the models."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from spillover.ask.journal import Journal
from spillover.ask.usage import Usage
from spillover.spec import Requests


@dataclass(frozen=True)
class Access:
    """How providers are reached from one lab.

    Attributes:
        requests: connections, retries and timeout.
        journal: every request that succeeded.
        capabilities: the file in which is kept what models can do.
        usage: what they were asked.
    """

    requests: Requests
    journal: Journal
    capabilities: Path
    usage: Usage = field(default_factory=Usage)


@contextmanager
def open_access(folder: Path, requests: Requests, usage: Usage | None = None) -> Iterator[Access]:
    """Access from a folder, which is made where there is none; its journal is closed afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / "requests.jsonl") as journal:
        yield Access(requests, journal, folder / "capabilities.json", usage or Usage())
