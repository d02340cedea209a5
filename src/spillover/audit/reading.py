"""A dataset's rows, one after the other, with their lines."""

from collections.abc import Iterator
from pathlib import Path

from spillover.audit.findings import Row
from spillover.data.files import stream_conversations


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of a dataset's file, in order. Raises DataError for a wrong row, by its line."""
    for where, conversation in stream_conversations(file):
        yield Row(int(where.rpartition(":")[2]), conversation.messages)
