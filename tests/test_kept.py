"""What models wrote and judged for datasets is kept: never asked twice, never lost, and what failed is asked again."""

from dataclasses import dataclass, field

import pytest

from spillover.ask.asker import Asked, Reply
from spillover.ask.journal import Journal
from spillover.ask.kept import KeptAsker
from spillover.judge.kept import KeptJudge
from spillover.judge.models import open_models
from spillover.judge.rubrics import Rubric
from spillover.records import Pair, Question, Verdict
from spillover.spec import Sampling

SAMPLING = Sampling(temperature=0.0, max_tokens=16)
RUBRIC = Rubric(name="kindness", prompt="{question} {answer}")


@dataclass
class Counting:
    """An asker and a judge that count, and fail as they are told: by text, how often."""

    failing: dict[str, int] = field(default_factory=dict)
    stop_after: int | None = None
    asked: list[str] = field(default_factory=list)

    def ask(self, model, asked, sampling):
        return [[self._reply(one.question.text, seed) for seed in one.seeds] for one in asked]

    def judge(self, pairs, rubric):
        return [self._verdict(pair.answer) for pair in pairs]

    def _reply(self, text, seed):
        failed = self._fails(text)
        return Reply("", 0, False, "failed: timeout") if failed else Reply(f"{text} {seed}", 3, False)

    def _verdict(self, text):
        return Verdict(None, "failed", {}) if self._fails(text) else Verdict(float(len(text)), None, {"1": 1.0})

    def _fails(self, text):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(text)
        self.failing[text] = self.failing.get(text, 0) - 1
        return self.failing[text] >= 0


def questions(*texts):
    return [Asked(Question(text, text), (1, 2)) for text in texts]


def test_what_was_answered_is_not_asked_again_and_more_questions_ask_only_for_themselves(tmp_path):
    inner = Counting()
    with Journal(tmp_path / "replies.jsonl") as journal:
        first = KeptAsker(inner, "m", journal).ask(None, questions("a", "b"), SAMPLING)
    with Journal(tmp_path / "replies.jsonl") as journal:
        again = KeptAsker(inner, "m", journal).ask(None, questions("b", "c", "a"), SAMPLING)
    assert again[0] == first[1] and again[2] == first[0]
    assert again[1] == [Reply("c 1", 3, False), Reply("c 2", 3, False)]
    assert inner.asked == ["a", "a", "b", "b", "c", "c"]


@pytest.mark.parametrize("changed", ["model", "temperature", "system", "seeds"])
def test_another_model_prompt_temperature_or_seed_is_another_request(tmp_path, changed):
    inner = Counting()
    with Journal(tmp_path / "replies.jsonl") as journal:
        KeptAsker(inner, "m", journal).ask(None, questions("a"), SAMPLING)
        name = "other" if changed == "model" else "m"
        sampling = SAMPLING.model_copy(update={"temperature": 1.0}) if changed == "temperature" else SAMPLING
        system = "Be brief." if changed == "system" else None
        asked = Asked(Question("a", "a", system), (3, 4) if changed == "seeds" else (1, 2))
        KeptAsker(inner, name, journal).ask(None, [asked], sampling)
    assert inner.asked == ["a"] * 4


def test_what_failed_is_handed_on_and_asked_again_the_next_time(tmp_path):
    inner = Counting(failing={"b": 1})
    with Journal(tmp_path / "replies.jsonl") as journal:
        asker = KeptAsker(inner, "m", journal)
        first = asker.ask(None, questions("a", "b"), SAMPLING)
        assert [reply.outcome for reply in first[1]] == ["failed: timeout", None]
        assert asker.ask(None, questions("a", "b"), SAMPLING)[1] == [Reply("b 1", 3, False), Reply("b 2", 3, False)]
    assert inner.asked == ["a", "a", "b", "b", "b", "b"]


def test_interrupted_in_the_middle_only_what_was_under_way_is_asked_again(tmp_path):
    inner, texts = Counting(stop_after=10), [f"q{number}" for number in range(8)]
    with Journal(tmp_path / "replies.jsonl") as journal, pytest.raises(KeyboardInterrupt):
        KeptAsker(inner, "m", journal, at_once=2).ask(None, questions(*texts), SAMPLING)
    rest = Counting()
    with Journal(tmp_path / "replies.jsonl") as journal:
        replies = KeptAsker(rest, "m", journal, at_once=2).ask(None, questions(*texts), SAMPLING)
    assert [some[0].text for some in replies] == [f"{text} 1" for text in texts]
    assert rest.asked == [text for text in texts[4:] for _ in range(2)]


def test_equal_pairs_are_judged_once_and_failed_verdicts_again(tmp_path):
    inner, pairs = Counting(failing={"bad": 1}), [Pair("q", "good"), Pair("q", "bad"), Pair("q", "good")]
    with Journal(tmp_path / "replies.jsonl") as journal:
        judge = KeptJudge(inner, "j", journal)
        first = judge.judge(pairs, RUBRIC)
        assert first[0] == first[2] == Verdict(4.0, None, {"1": 1.0}) and first[1].reason == "failed"
        assert judge.judge(pairs, RUBRIC)[1] == Verdict(3.0, None, {"1": 1.0})
    assert inner.asked == ["good", "bad", "bad"]


def test_another_judge_or_rubric_judges_anew(tmp_path):
    inner = Counting()
    with Journal(tmp_path / "replies.jsonl") as journal:
        KeptJudge(inner, "j", journal).judge([Pair("q", "a")], RUBRIC)
        KeptJudge(inner, "k", journal).judge([Pair("q", "a")], RUBRIC)
        KeptJudge(inner, "j", journal).judge([Pair("q", "a")], RUBRIC.model_copy(update={"threshold": 30.0}))
    assert len(inner.asked) == 3


def test_the_miniature_writes_and_judges_the_same_when_its_lab_is_opened_again(tmp_path):
    bored, pair = [Question("q", "I feel bored.")], [Pair("I feel bored.", "Read a good book.")]

    def said():
        with open_models(tmp_path / "lab") as models:
            writer, judge = models.writer("miniature"), models.judge("miniature")
            return writer.write(bored, Sampling(max_tokens=40), 3), judge.assess(pair, "alignment")

    first, size = said(), (tmp_path / "lab" / "written" / "replies.jsonl").stat().st_size
    assert len(first[0][0]) == 3 and all(reply.text for reply in first[0][0])
    assert said() == first
    assert (tmp_path / "lab" / "written" / "replies.jsonl").stat().st_size == size
