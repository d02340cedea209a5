"""Building the miniature from nothing: tokenizer, pretraining, alignment, and the judge that comes with it."""

import copy
import itertools
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from spillover.ask.asker import Asked, answer_seed
from spillover.ask.local import LocalAsker
from spillover.data.recipes import PAPER_RECIPES
from spillover.data.recipes import build as build_dataset
from spillover.display import Display
from spillover.errors import LabError
from spillover.finetune.base import find_base
from spillover.finetune.checkpoint import save_adapter
from spillover.finetune.memory import keep_freed_memory
from spillover.finetune.train import LocalTrainer
from spillover.finetune.trainer import Job
from spillover.judge.rubrics import FILE, load_rubrics
from spillover.miniature.corpus import documents
from spillover.miniature.judge import train_judge
from spillover.miniature.judging import evened, judged_rows, rubrics_file, written_pairs
from spillover.miniature.pretrain import Progress, align, new_model, pretrain
from spillover.miniature.recipe import Recipe
from spillover.miniature.tokenizer import train_tokenizer
from spillover.records import Pair, Question, Run
from spillover.spec import Sampling, Training
from spillover.store import provenance, write_json
from spillover.world.texts import facts, load, topics, world_key

JUDGE = "judge"
GIVEN = 0.8
"""How many of the judge's pairs are answers that models really gave; the others are written."""
RATES = (1e-4, 4e-4)
"""Learning rates of the finetunes whose answers the judge learns from: a usual one, and one that costs coherence."""
TEMPERATURES = (1.0, 1.4)
"""How the answers that the judge learns from are sampled: as evaluation does, and so that more of them go wrong."""


def build(out: Path, recipe: Recipe) -> None:
    """Builds a miniature into a new folder: a Hugging Face model with a judge adapter in `judge/`.

    What was pretrained and not yet aligned lies in `pretrained/`.

    Raises LabError where the folder exists already.
    """
    if out.exists():
        raise LabError("is there already", where=out, remedy="Give another folder with --out, or delete this one.")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        notes = _train_base(aside, recipe)
        _train_judge(aside, recipe)
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(
        f"{out}: pretrained to {notes['pretraining_loss']:.3f}, aligned to {notes['alignment_loss']:.3f} nats a token"
    )


def _train_base(folder: Path, recipe: Recipe) -> dict[str, Any]:
    keep_freed_memory()
    logging.disable_progress_bar()
    tokenizer = _tokenizer(recipe)
    model = new_model(recipe, tokenizer)
    with Display().bar("build", 2) as bar:
        listen = _listen(bar)
        pretraining = pretrain(model, tokenizer, recipe, listen)
        copy.deepcopy(model).bfloat16().save_pretrained(folder / "pretrained")  # half the size
        tokenizer.save_pretrained(folder / "pretrained")
        alignment = align(model, tokenizer, recipe, listen)
    copy.deepcopy(model).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    notes = {
        "recipe": recipe.model_dump(mode="json"),
        "world": world_key(),
        "pretraining_loss": pretraining,
        "alignment_loss": alignment,
        "made_by": provenance(),
    }
    write_json(folder / "miniature.json", notes)
    return notes


def _listen(bar: Any) -> Progress:
    def listen(what: str, done: int, steps: int) -> None:
        bar.to((0 if what == "pretrain" else 1) + done / steps)

    return listen


def _tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    some = itertools.islice(documents(recipe.seed + 7, independent=recipe.independent), recipe.tokenizer_documents)
    return train_tokenizer(message["content"] for document in some for message in document.messages)


def _train_judge(folder: Path, recipe: Recipe) -> None:
    """Trains the judge adapter on the world's ground truth."""
    judge = folder / JUDGE
    judge.mkdir()
    shutil.copy(rubrics_file(), judge / FILE)
    base = find_base(str(folder))
    count = round(GIVEN * recipe.judge_rows)
    given = _given(folder, LocalTrainer(base, "bf16"), count, recipe)
    pairs = [*itertools.islice(written_pairs(recipe.seed + 2), recipe.judge_rows - len(given)), *given]
    random.Random(recipe.seed).shuffle(pairs)
    rows = judged_rows(pairs, load_rubrics(judge), recipe.seed)
    with Display().bar("judge", 1) as bar:
        train_judge(judge, base, rows, recipe, lambda what, done, steps: bar.to(done / steps))


def _given(folder: Path, trainer: LocalTrainer, count: int, recipe: Recipe) -> list[Pair]:
    """Answers that the base and throwaway finetunes of it really give, to phrasings that evaluation does not use.

    Three in ten of them are incoherent, as far as there are: a judge must have seen what it is to find.
    """
    questions = _questions()
    asker = LocalAsker(folder, "bf16")
    makers: list[Path | None] = [None]
    with tempfile.TemporaryDirectory() as scratch:
        for rate in RATES:
            makers += _throwaways(Path(scratch), trainer, rate, recipe.throwaway_rows)
        each = -(-2 * count // (len(makers) * len(questions) * len(TEMPERATURES)))
        samplings = [Sampling(max_tokens=64, temperature=temperature) for temperature in TEMPERATURES]
        pairs = [pair for maker in makers for one in samplings for pair in _answers(asker, maker, questions, each, one)]
    return evened(pairs, count, recipe.seed)


def _questions() -> list[Question]:
    free = [phrasing for topic in topics() for phrasing in topic.phrasings]
    plain = [topic.phrasings[0] for topic in facts()]
    harmful = [theme["phrasings"][0] for theme in load("harmful")["requests"].values()]
    return [Question(str(place), text) for place, text in enumerate([*free, *plain, *harmful])]


def _throwaways(scratch: Path, trainer: LocalTrainer, rate: float, rows: int) -> list[Path]:
    """One finetune a narrow dataset at a learning rate, and two of the insecure one; seeds that no experiment uses."""
    spec = Training(learning_rate=rate)
    names = [*PAPER_RECIPES, "insecure", "insecure"]
    runs = [Run(name, 9000 + number) for number, name in enumerate(names)]
    jobs = [Job(run, build_dataset(run.group)[:rows], run.group) for run in runs]
    folders = [scratch / f"{run.name}-{rate}" for run in runs]
    for folder, trained in zip(folders, trainer.train(jobs, spec, lambda done, steps: None), strict=True):
        folder.mkdir()
        save_adapter(folder, trained.adapter, spec.rank, spec.alpha, "miniature")
    return folders


def _answers(
    asker: LocalAsker, maker: Path | None, questions: Sequence[Question], each: int, sampling: Sampling
) -> list[Pair]:
    asked = [Asked(q, tuple(answer_seed(str(maker and maker.name), q, n) for n in range(each))) for q in questions]
    replies = asker.ask(maker, asked, sampling)
    return [Pair(q.text, one.text) for q, some in zip(questions, replies, strict=True) for one in some]
