"""Who does a plan's work: local ones and providers' behind the three seams, made when they are first needed."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from spillover.ask.access import Access, open_access
from spillover.ask.asker import Asked, Effect, Reply
from spillover.crew import Alone, Hands, Lost, load_meanwhile
from spillover.finetune.base import Base, context_length, find_base
from spillover.finetune.budget import MemoryPlan
from spillover.finetune.served import TINKER
from spillover.finetune.trainer import Job, Trained, Trainer
from spillover.judge.judge import WITHOUT_MODEL, Judge
from spillover.judge.make import id_of, make_judge
from spillover.judge.rubrics import Rubric
from spillover.lazy import lazy
from spillover.pipeline.cells import Checkpoint
from spillover.pipeline.choices import ChoiceSet, Chosen
from spillover.pipeline.parts import PART
from spillover.pipeline.plan import Plan
from spillover.pipeline.staff import LIBRARIES, Staff
from spillover.records import Model, Pair, Verdict
from spillover.spec import API, Chat, Experiment, Sampling
from spillover.store import PROVIDERS, Lab

if TYPE_CHECKING:  # they load torch
    from spillover.pipeline.training import Fleet, Progress

# Torch, inspect_ai and the services' clients are loaded by those that need them.
local_asker = lazy("spillover.ask.local")
providers = lazy("spillover.ask.provider")
inspected = lazy("spillover.ask.inspected")
serving = lazy("spillover.ask.served")
models = lazy("spillover.finetune.model")
hands = lazy("spillover.pipeline.hands")
training = lazy("spillover.pipeline.training")
writing = lazy("spillover.judge.models")
openai_jobs = lazy("spillover.finetune.openai_jobs")
tinker_jobs = lazy("spillover.finetune.tinker_jobs")

MUCH = 3000
"""Rows, answers or pairs from which on several processes are worth starting: with fewer, one would be done by then."""
LEAST = 256
"""Answers, or pairs, that are asked for or judged at once however many processes there are: fewer are no faster."""
Asking = tuple[Checkpoint, Callable[[], list[Asked]]]
"""A checkpoint, and what it is asked, which is made when it is."""
Judging = tuple[Rubric, Sequence[Pair]]
"""Pairs, and what they are judged by."""


def expect(plan: Plan, lab: Lab) -> None:
    """Has libraries loaded for processes that will work side by side, while this one loads its own."""
    asked = sum(cell.answers for cell in plan.cells if not cell.folder(lab).is_dir())
    if asked >= MUCH and plan.is_local and plan.memory.processes > 1:
        load_meanwhile(LIBRARIES)


class Writers:
    """Models that write rows of datasets, by name; each is opened once."""

    def __init__(self, lab: Lab, experiment: Experiment, stack: ExitStack) -> None:
        self._lab, self._experiment, self._stack = lab, experiment, stack
        self._open: dict[str, Any] = {}

    def __call__(self, ref: str) -> Any:
        """The model. Raises BaseError or ProviderError where there is none."""
        if ref not in self._open:
            chat = self._experiment.chat if ref == self._experiment.base else Chat()
            self._open[ref] = self._models.writer(ref, chat)
        return self._open[ref]

    @cached_property
    def _models(self) -> Any:
        return writing.Models(self._lab, self._stack, self._experiment.requests, self._experiment.machine)


class Workers:
    """A stage's workers. A model takes long to load and much room: this process loads each once a stage.

    Args:
        plan: whose work it is.
        lab: where its results lie.
        staff: the command's processes.
        work: how much there is to do that several processes could: rows to learn, answers to give, pairs to judge,
            items to choose in.
    """

    def __init__(self, plan: Plan, lab: Lab, staff: Staff, work: int = 0) -> None:
        self.plan, self.lab, self.staff, self.work = plan, lab, staff, work
        self._effects: dict[Model, Effect] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def trainer(self) -> Trainer:
        """The service that finetunes."""
        made: Trainer = getattr(self, f"_{self.plan.experiment.trainer}_trainer")()
        return made

    def check_questions(self) -> None:
        """Raises QuestionError for a question that the base cannot be asked: before hours of finetuning, not after."""
        if not self.plan.is_asked_here:
            return
        tokenizer = models.load_tokenizer(self.plan.base.path)
        for question in self.plan.questions.values():
            local_asker.question_ids(tokenizer, question, self.plan.experiment.chat)

    def check_rows(self, jobs: Iterable[Job]) -> None:
        """Raises DataError or BaseError for a row that cannot be learned, of whichever run: before the first begins."""
        experiment = self.plan.experiment
        if experiment.trainer == "local":
            one_a_group = {job.run.group: job for job in jobs}
            pairs = [(job, experiment.training(group)) for group, job in one_a_group.items()]
            for _ in self._training.each("check", (([one],) for one in pairs)):
                pass

    @cached_property
    def memory(self) -> MemoryPlan:
        """How training and asking fit into what works."""
        memory: MemoryPlan = self.staff.memory(self.plan)
        return memory

    @property
    def trainers(self) -> int:
        """How many train at the same time."""
        return self._training.size

    @property
    def answers(self) -> int:
        """How many answers are asked for at once: fewer than make a part where several share them."""
        return self._piece(self.memory.processes if self.plan.is_asked_here and self._is_much else 1)

    @property
    def pairs(self) -> int:
        """How many pairs are judged at once, likewise."""
        judge = self.plan.judge
        return self._piece(1 if judge is None or judge.is_hosted else self._judging.size)

    def _piece(self, size: int) -> int:
        return PART if size == 1 else min(PART, max(LEAST, -(-self.work // (4 * size))))

    def trained(self, fleets: "Sequence[Fleet]", progress: "Progress") -> "Iterator[tuple[int, list[Trained | Lost]]]":
        """What each run of each fleet learns: by the fleet's number, as it comes. `progress` is given runs' worth."""
        if self.plan.experiment.trainer == "local":
            yield from training.train_all(fleets, self._training, progress, away=self.staff.is_away)
            return
        for number, (jobs, spec) in enumerate(fleets):  # a service is given one that holds all

            def listen(done: int, steps: int, runs: int = len(jobs)) -> None:
                progress(runs * done / steps)

            yield number, [*self.trainer.train(jobs, spec, listen)]

    def judged(self, work: "Sequence[Judging]") -> "Iterator[tuple[int, list[Verdict] | Lost]]":
        """Verdicts, in the order of the pairs: as they come, with their number; a local model's come first."""
        judge = self.plan.judge
        here = judge is not None and not judge.is_hosted
        by_hands = [number for number, (rubric, _) in enumerate(work) if here and rubric.by == "model"]
        shares = ((work[number][1], work[number][0]) for number in by_hands)
        if by_hands:
            yield from ((by_hands[place], found) for place, found in self._judging.each("judge", shares))
        for number, (rubric, pairs) in enumerate(work):
            if number not in by_hands:
                yield number, self.judge(rubric).judge(pairs, rubric)

    def asked(self, work: Sequence[Asking]) -> Iterator[tuple[int, list[Asked], list[list[Reply]] | Lost]]:
        """What checkpoints answer: as it comes, with its number and what was asked; what is asked here comes first."""
        here: list[int] = []
        elsewhere: list[int] = []
        for number, (checkpoint, _) in enumerate(work):
            (elsewhere if self._is_elsewhere(checkpoint) else here).append(number)
        if here:
            yield from self._asked_here(work, here)
        for number in elsewhere:
            checkpoint, asked = work[number][0], work[number][1]()
            model, sampling = checkpoint.model(self.lab), self.plan.experiment.sampling
            yield number, asked, self._provider_asker.ask(model, asked, sampling)

    def _asked_here(
        self, work: Sequence[Asking], numbers: Sequence[int]
    ) -> Iterator[tuple[int, list[Asked], list[list[Reply]] | Lost]]:
        """By this process or by several."""
        begun: dict[int, tuple[Model, list[Asked]]] = {}

        def shares() -> Iterator[tuple[Any, ...]]:
            for number in numbers:
                begun[number] = (work[number][0].model(self.lab), work[number][1]())
                model, asked = begun[number]
                yield self._carried(self._asking, model), asked, self.plan.experiment.sampling

        for place, found in self._asking.each("ask", shares()):
            model, asked = begun.pop(numbers[place])
            if isinstance(found, Lost):
                yield numbers[place], asked, found
                continue
            replies, effect = found
            if effect is not None:
                self._effects[model] = effect
            yield numbers[place], asked, replies

    def _carried(self, hands: Hands, model: Model) -> Any:
        """An adapter as those who are asked find it."""
        return hands.carried(model) if isinstance(model, Path) else model

    def _is_elsewhere(self, checkpoint: Checkpoint) -> bool:
        """Whether a provider is asked for a checkpoint's answers, or a vLLM server."""
        model = checkpoint.model(self.lab)
        hosted = isinstance(model, str) or (model is None and self.plan.base.is_hosted)
        return hosted or self.plan.experiment.asker == "vllm"

    def chosen(self, work: Iterable[tuple[Path | None, ChoiceSet]]) -> Iterator[tuple[int, Chosen | Lost]]:
        """What adapters choose, and the base (None): as it comes, with its number."""
        experiment = self.plan.experiment
        how = (experiment.train.precision, experiment.chat, experiment.machine)
        choosing = self._hands(partial(hands.ChoosingHand, self.plan.base, *how), self.plan.base)
        shares = ((self._carried(choosing, model), some) for model, some in work)
        yield from choosing.each("choose", shares)

    def inspected(self, checkpoint: Checkpoint) -> tuple[Any, int]:
        """A checkpoint's model as Inspect's, new each time, and how many samples may be under way at once."""
        experiment, model = self.plan.experiment, checkpoint.model(self.lab)
        if self._is_elsewhere(checkpoint):
            ref = serving.served_ref(self._base_ref, model) if isinstance(model, Path) else (model or self._base_ref)
            made = self._provider_model(ref.removeprefix(API), experiment.sampling, checkpoint.key)
            return made, experiment.requests.connections
        folder = model if isinstance(model, Path) else None
        local = inspected.Local(self._local_asker, folder, checkpoint.key, context_length(self.plan.base.path))
        most = self.memory.answers
        return inspected.local_model(checkpoint.run.name, local, experiment.sampling, most), most

    def grader(self, ref: str) -> Any:
        """A provider's model as Inspect's `grader`; how it is sampled is the task's to say."""
        return self._provider_model(ref, None, "grader")

    def _provider_model(self, ref: str, sampling: Sampling | None, of: str) -> Any:
        """Each has a client of its own: Inspect runs every evaluation in an event loop of its own."""
        scope = {"lab": str(self.lab.root.resolve()), "of": of}
        is_vllm = ref.startswith(serving.VLLM)
        args = serving.server_args(self._adapters) if is_vllm else {}
        made = inspected.provider_model(ref, sampling, self.plan.experiment.requests, scope, args)
        if is_vllm:
            self._open.callback(made.api.close)  # ends a server that was started for it
        return made

    def effect(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """How much a checkpoint's adapter was seen to change the base, once it was asked; None for other models."""
        model = checkpoint.model(self.lab)
        if not isinstance(model, Path):
            return None
        effects = self._provider_asker.effects if self._is_elsewhere(checkpoint) else self._effects
        found: Effect | None = effects.get(model)
        return dataclasses.asdict(found) if found is not None else None

    def judge(self, rubric: Rubric) -> Judge:
        """Who judges by a rubric, where that is no local model."""
        return self._provider_judge if rubric.by == "model" else WITHOUT_MODEL[rubric.by]

    def judged_by(self, rubric: Rubric) -> str:
        """Who judges by a rubric, as it stands beside a verdict; a provider's judge also says how it is read."""
        judge = self.plan.judge
        if rubric.by != "model" or judge is None:
            return rubric.by
        return id_of(self.judge(rubric), judge) if judge.is_hosted else judge.id

    @cached_property
    def _access(self) -> Access:
        return self._open.enter_context(open_access(self.lab.root / PROVIDERS, self.plan.experiment.requests))

    @property
    def _is_much(self) -> bool:
        return self.work >= MUCH or self.plan.experiment.machine.processes is not None or self.staff.is_away

    def _hands(self, make: Callable[[], Any], base: Base) -> Hands:
        """Who does local work: the staff where there is much, or this process alone."""
        return self.staff.hands(make, self.plan, base) if self._is_much else Alone(make)

    @property
    def _how(self) -> tuple[Any, ...]:
        """What a local asker is made of, beside the base."""
        experiment, memory = self.plan.experiment, self.memory
        return experiment.train.precision, experiment.chat, experiment.machine, memory.answers, memory.written

    @cached_property
    def _asking(self) -> Hands:
        return self._hands(partial(hands.AskingHand, self.plan.base, *self._how), self.plan.base)

    @cached_property
    def _local_asker(self) -> Any:
        """For what asks in its own way: this process alone."""
        return local_asker.LocalAsker(self.plan.base.fetched(), *self._how)

    @cached_property
    def _provider_asker(self) -> Any:
        """Who asks the providers of models: one asker for all, and with `asker: vllm` for the base and its adapters."""
        asker = providers.ProviderAsker(self._base_ref, self._access, adapters=self._adapters)
        return self._open.enter_context(asker)

    @property
    def _base_ref(self) -> str:
        """How the base is called at its provider, or on a vLLM server."""
        base = self.plan.base
        return base.ref if base.is_hosted else f"{API}{serving.VLLM}{base.ref.split('@')[0]}"

    @property
    def _adapters(self) -> list[Path]:
        """All that a server must have room for."""
        models = (one.model(self.lab) for one in self.plan.checkpoints)
        return [model for model in models if isinstance(model, Path)]

    @cached_property
    def _provider_judge(self) -> Judge:
        judge, experiment = self.plan.judge, self.plan.experiment
        assert judge is not None and judge.is_hosted, "a plan with a rubric for models has a judge"
        return make_judge(judge, experiment.train.precision, experiment.machine, self._access)

    @cached_property
    def _judging(self) -> Hands:
        judge, experiment = self.plan.judge, self.plan.experiment
        assert judge is not None, "a plan with a rubric for models has a judge"
        make = partial(make_judge, judge, experiment.train.precision, experiment.machine)
        # A judge on the same base is found by another name, and takes no more room.
        base = self.plan.base if judge.base == self.plan.base else judge.base
        return self._hands(partial(hands.JudgingHand, make), base)

    @cached_property
    def _training(self) -> Hands:
        experiment = self.plan.experiment
        how = (experiment.train.precision, experiment.chat, experiment.machine, self.memory)
        kind = hands.AwayTrainingHand if self.staff.is_away else hands.TrainingHand
        return self._hands(partial(kind, self.plan.base, *how), self.plan.base)

    def _openai_trainer(self) -> Any:
        return openai_jobs.OpenAITrainer(self.plan.experiment.base, self.plan.experiment.hosted)

    def _tinker_trainer(self) -> Any:
        experiment = self.plan.experiment
        tokenizer = models.load_tokenizer(find_base(experiment.base.removeprefix(TINKER), experiment.chat).path)
        return tinker_jobs.TinkerTrainer(
            experiment.base,
            tokenizer,
            self.lab.root / PROVIDERS / "tinker",
            chat=experiment.chat,
            state_every=experiment.train.save_every or 50,
        )
