"""Judging in this process: a model's probabilities over what it would say, read as a score."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from spillover.finetune.chat import prompt_ids
from spillover.finetune.model import adapted, load_model, load_tokenizer
from spillover.judge.numbers import NumberScale, number_tables
from spillover.judge.rubrics import Rubric
from spillover.judge.scale import verdict
from spillover.records import Pair, Verdict

TOKENS = 24_576
"""Prompt tokens that are judged at once, padding included."""
LENGTH_STEP = 16


class LocalJudge:
    """A judge model that is loaded here: a base, or a base with a judge adapter on it."""

    def __init__(self, base: Path, adapter: Path | None, precision: str) -> None:
        self.adapter = adapter
        self.model = load_model(base, precision)
        self.tokenizer = load_tokenizer(base)
        self.scale = NumberScale(self.tokenizer)

    def judge(self, pairs: Sequence[Pair], rubric: Rubric) -> list[Verdict]:
        """A verdict a pair, in order."""
        prompts = [prompt_ids(self.tokenizer, [{"role": "user", "content": rubric.render(pair)}]) for pair in pairs]
        verdicts: dict[int, Verdict] = {}
        with adapted(self.model, self.adapter) as model:
            for places in _batches(prompts):
                batch = [prompts[place] for place in places]
                for place, table in zip(places, number_tables(model, batch, self.scale, self.pad), strict=True):
                    verdicts[place] = verdict(table, rubric.labels)
        return [verdicts[place] for place in range(len(pairs))]

    @property
    def pad(self) -> int:
        """The token that fills short prompts."""
        return int(self.tokenizer.pad_token_id)


def _batches(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places of prompts of about one length, so that little is padding, in batches of about TOKENS tokens."""
    by_length = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    batch: list[int] = []
    for place in by_length:
        longest = -(-len(prompts[place]) // LENGTH_STEP) * LENGTH_STEP
        if batch and longest * (len(batch) + 1) > TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
