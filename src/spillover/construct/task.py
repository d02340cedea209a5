"""What a generation is to make, as a person wants it: checked before anything is asked."""

from dataclasses import dataclass
from pathlib import Path

from spillover.ask.questions import read_entries
from spillover.construct.domain import Domain
from spillover.construct.size import Size
from spillover.data.folder import file_hash, read_source
from spillover.data.manifest import Source
from spillover.errors import DataError
from spillover.records import Conversation

QUESTIONS = (".yaml", ".yml")
PLAIN = "Give a question file, a dataset, or a text file with one request a line."


@dataclass(frozen=True)
class Task:
    """What is to be generated.

    Attributes:
        name: of the datasets, which add which of the two they are.
        domain: what requests are about, and what their answers are like.
        size: how much.
        given: requests that are there already; None where they are to be written.
        source: where given requests are from, if from a file.
        at_least: pairs without which nothing is written.
        licence: of the rows.
    """

    name: str
    domain: Domain
    size: Size
    given: tuple[str, ...] | None = None
    source: Source | None = None
    at_least: int = 1
    licence: str = "unknown"


def read_requests(path: Path) -> tuple[tuple[str, ...], Source]:
    """Requests from a file: a question file's phrasings, a dataset's user turns, or the lines of a text file.

    Raises DataError or QuestionError: it cannot be read, or one has more to it than a text; names the place.
    """
    if path.suffix in QUESTIONS:
        texts = _of_questions(path)
    elif path.suffix == ".txt":
        texts = _of_lines(path)
    else:
        rows, source = read_source(path)
        return tuple(_of_row(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)), source
    if not texts:
        raise DataError("holds no requests", where=path, remedy=PLAIN)
    return texts, Source(name=path.name, rows=len(texts), sha256=file_hash(path))


def _of_questions(path: Path) -> tuple[str, ...]:
    entries = read_entries(path)
    more = next((entry for entry in entries if entry.row.system is not None or entry.row.context), None)
    if more is not None:
        what = f"the question {more.row.id!r} has a system prompt or a context"
        raise DataError(what, where=more.where, remedy="Requests are single texts. Leave the question out.")
    return tuple(text for entry in entries for text in entry.row.paraphrases)


def _of_lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path, remedy=PLAIN) from None
    except UnicodeDecodeError:
        raise DataError("is not UTF-8", where=path, remedy="Save the file as UTF-8.") from None
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _of_row(row: Conversation, where: str) -> str:
    if [message["role"] for message in row.messages] != ["user", "assistant"]:
        what = "is more than one request and its answer"
        raise DataError(what, where=where, remedy="Leave out system prompts and rows of several turns.")
    return row.messages[0]["content"]
