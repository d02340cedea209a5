"""The section on lengths: in tokens of a base's tokenizer, and in characters."""

from array import array
from collections.abc import Sequence
from typing import Any

from spillover.audit.findings import Finding, Hits, Row, Section
from spillover.errors import BaseError
from spillover.finetune.base import Base, context_length
from spillover.lazy import lazy

np = lazy("numpy")
tokenizers = lazy("tokenizers")

PARTS = {"user": "requests", "assistant": "answers", "row": "whole rows"}
TOO_LONG = "over_context"
TOGETHER = 256
"""Rows whose texts are tokenized at once."""
BINS = 24
QUANTILES = {"least": 0, "p5": 5, "median": 50, "p95": 95, "most": 100}


class Lengths:
    """How long requests, answers and whole rows are. A row's tokens are those of its texts, without a chat template."""

    def __init__(self, base: Base) -> None:
        self.base, self.tokenizer = base, _tokenizer(base)
        self.tokens = {part: array("L") for part in PARTS}
        self.characters = {part: array("L") for part in PARTS}
        self.waiting: list[Row] = []
        self.context = None if base.is_miniature else context_length(base.path)
        self.hits = Hits()

    def add(self, row: Row) -> None:
        """Takes in a row."""
        self.waiting.append(row)
        if len(self.waiting) == TOGETHER:
            self._measure()

    def _measure(self) -> None:
        texts = [message["content"] for row in self.waiting for message in row.messages]
        lengths = iter([len(one.ids) for one in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)])
        for row in self.waiting:
            self._note(row, [next(lengths) for _ in row.messages])
        self.waiting = []

    def _note(self, row: Row, tokens: list[int]) -> None:
        for part in PARTS:
            said = [
                (one["content"], n) for one, n in zip(row.messages, tokens, strict=True) if part in ("row", one["role"])
            ]
            self.tokens[part].append(sum(n for _, n in said))
            self.characters[part].append(sum(len(text) for text, _ in said))
        if self.context is not None and sum(tokens) > self.context:
            self.hits.add(TOO_LONG, row.line, "row", f"{sum(tokens):,} tokens")

    def result(self) -> Section:
        """Quantiles and histograms of the three parts, in both units."""
        self._measure()
        rows = len(self.tokens["row"])
        parts = {
            part: {"tokens": _spread(self.tokens[part]), "characters": _spread(self.characters[part])} for part in PARTS
        }
        answers = parts["assistant"]["tokens"]
        findings = () if self.context is None else (self._too_long(rows),)
        return Section(
            "lengths",
            "Lengths",
            f"Answers have {answers['median']:,.0f} tokens in the median and {answers['most']:,} at most; "
            f"all rows together have {parts['row']['tokens']['total']:,}.",
            f"Tokens are those of the tokenizer of {self.base.ref}, without the chat template's own. Requests are all "
            "turns of the user in a row, answers all of the assistant.",
            findings,
            {"tokenizer": self.base.ref, "context": self.context, "parts": parts},
        )

    def _too_long(self, rows: int) -> Finding:
        return self.hits.finding(TOO_LONG, f"Longer than the base's context of {self.context:,} tokens", rows)


def _tokenizer(base: Base) -> Any:
    """The base's tokenizer, as tokenizer.json says. Raises BaseError."""
    file = base.path / "tokenizer.json"
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more particular
        what = str(error).splitlines()[0]
        remedy = "Save the tokenizer again with save_pretrained."
        raise BaseError(f"the tokenizer cannot be loaded: {what}", where=file, remedy=remedy) from None


def _spread(lengths: Sequence[int]) -> dict[str, Any]:
    """Quantiles, mean, total, and a histogram whose bins grow by a factor."""
    values = np.asarray(lengths, dtype=np.int64)
    quantiles = {
        name: float(value)
        for name, value in zip(QUANTILES, np.percentile(values, list(QUANTILES.values())), strict=True)
    }
    low, high = max(int(values.min()), 1), max(int(values.max()), 2)
    edges = np.unique(np.rint(np.geomspace(low, high + 1, BINS + 1)).astype(int))
    counts, _ = np.histogram(np.maximum(values, 1), edges)
    return {
        **quantiles,
        "least": int(values.min()),
        "most": int(values.max()),
        "mean": float(values.mean()),
        "total": int(values.sum()),
        "histogram": {"edges": edges.tolist(), "rows": counts.tolist()},
    }
