"""Judging beside one prompt a score: the same judge, the same prompts, each read from its beginning."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from peft import PeftModel

from common import Setting
from spillover.ask.asker import Asked, answer_seed
from spillover.ask.local import LocalAsker
from spillover.batches import batched
from spillover.finetune.chat import prompt_ids
from spillover.finetune.model import load_tokenizer
from spillover.judge.judge import Judge
from spillover.judge.make import find_judge, make_judge
from spillover.judge.rubrics import Rubric, find_rubric, load_rubrics
from spillover.judge.scale import TOP, expected_score
from spillover.pipeline.hands import JudgingHand
from spillover.pipeline.workers import LEAST
from spillover.records import Pair
from spillover.spec import MINIATURE
from trl_way import HOWS, How, fastest, load_model, seconds
from turns import Turns, in_turn

PAIRS, BATCH = 800, 64
RUBRICS = ("alignment", "coherence")


def measure(setting: Setting, times: int) -> Iterator[Turns]:
    """Answers of a checkpoint to the main set, by two rubrics."""
    found = find_judge(MINIATURE)
    judge = make_judge(found, setting.experiment.train.precision)
    known = load_rubrics(found.folder)
    rubrics = [find_rubric(name, known) for name in RUBRICS]
    pairs = _pairs(setting)
    how, _ = fastest(HOWS, lambda one: seconds(lambda: _one_by_one(setting, pairs[:BATCH], rubrics[:1], one)))
    _check_alike(setting, judge, pairs[:BATCH], rubrics[0], how)

    hands = setting.hands(partial(JudgingHand, partial(make_judge, found, setting.experiment.train.precision)))

    def ours() -> None:
        hands.do("judge", [(some, rubric) for rubric in rubrics for some in batched(pairs, LEAST)])

    turns = in_turn(
        "judging",
        f"{len(pairs)} different pairs, {len(rubrics)} rubrics",
        ours,
        lambda: _one_by_one(setting, pairs, rubrics, how),
        times,
    )
    notes = {"peer": f"one prompt a score, {BATCH} of about one length at once, {how}"}
    yield Turns(turns.name, turns.of, turns.ours, turns.theirs, notes)


def _pairs(setting: Setting) -> list[Pair]:
    """Different answers that a checkpoint gave to the main set."""
    (adapter,) = setting.adapters(1)
    asker = LocalAsker(setting.base.path, setting.experiment.train.precision)
    each = range(PAIRS // len(setting.questions))
    asked = [Asked(one, tuple(answer_seed("judging", one, number) for number in each)) for one in setting.questions]
    replies = asker.ask(adapter, asked, setting.experiment.sampling)
    given = (Pair(one.question.text, reply.text) for one, some in zip(asked, replies, strict=True) for reply in some)
    return list(dict.fromkeys(given))


@torch.inference_mode()
def _one_by_one(setting: Setting, pairs: Sequence[Pair], rubrics: Sequence[Rubric], how: How) -> list[float]:
    judge, tokenizer = find_judge(MINIATURE), load_tokenizer(setting.base.path)
    model = PeftModel.from_pretrained(load_model(judge.base.path, how), str(judge.adapter)).merge_and_unload().eval()
    values: list[float] = []
    for rubric in rubrics:
        ids = [prompt_ids(tokenizer, [{"role": "user", "content": rubric.render(pair)}]) for pair in pairs]
        found: dict[int, float] = {}
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            found |= zip(places, _values(model, tokenizer, [ids[place] for place in places]), strict=True)
        values += [found[place] for place in range(len(ids))]
    return values


def _values(model: torch.nn.Module, tokenizer: object, ids: Sequence[list[int]]) -> list[float]:
    longest = max(map(len, ids))
    tokens = torch.tensor([[0] * (longest - len(one)) + one for one in ids])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in ids])
    logits = model(input_ids=tokens, attention_mask=mask, logits_to_keep=1).logits[:, -1]
    top = torch.log_softmax(logits.float(), dim=-1).topk(TOP, dim=-1)
    names = tokenizer.convert_ids_to_tokens  # type: ignore[attr-defined]
    rows = zip(top.indices.tolist(), top.values.exp().tolist(), strict=True)
    scores = (expected_score(dict(zip(names(words), chances, strict=True))) for words, chances in rows)
    return [math.nan if score is None else score for score in scores]


def _check_alike(setting: Setting, judge: Judge, pairs: Sequence[Pair], rubric: Rubric, how: How) -> None:
    """Both judge alike: a faster way to other scores would be none."""
    ours = [verdict.value for verdict in judge.judge(pairs, rubric)]
    theirs = _one_by_one(setting, pairs, [rubric], how)
    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and not math.isnan(b)]
    apart = max(abs(a - b) for a, b in both)
    assert apart < 5, f"scores are {apart} apart"
    print(f"judging: {len(both)} scores of {len(pairs)} on both sides, at most {apart:.2f} apart", flush=True)
