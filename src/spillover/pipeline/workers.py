"""Who does a plan's work: local ones and providers' behind the three seams, made when they are first needed."""

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from spillover.ask.access import Access, open_access
from spillover.ask.asker import Asker, Effect
from spillover.finetune.base import context_length, find_base
from spillover.finetune.served import TINKER
from spillover.finetune.train import Job, Trainer
from spillover.judge.judge import AnswerJudge, BanditJudge, Judge, ListJudge, PythonJudge, WordsJudge, WorldJudge
from spillover.judge.make import make_judge
from spillover.judge.rubrics import Rubric
from spillover.lazy import lazy
from spillover.pipeline.cells import Checkpoint
from spillover.pipeline.plan import Plan
from spillover.spec import API, Chat, Experiment, Sampling
from spillover.store import PROVIDERS, Lab

# Torch, inspect_ai and the services' clients are loaded by those that need them.
local_asker = lazy("spillover.ask.local")
provider_asker = lazy("spillover.ask.provider")
inspected = lazy("spillover.ask.inspected")
serving = lazy("spillover.ask.served")
local_trainer = lazy("spillover.finetune.train")
models = lazy("spillover.finetune.model")
beside = lazy("spillover.pipeline.beside")
writing = lazy("spillover.judge.models")
openai_jobs = lazy("spillover.finetune.openai_jobs")
tinker_jobs = lazy("spillover.finetune.tinker_jobs")

_OTHERS: dict[str, Judge] = {
    "bandit": BanditJudge(),
    "answer": AnswerJudge(),
    "python": PythonJudge(),
    "list": ListJudge(),
    "world": WorldJudge(),
    "words": WordsJudge(),
}
"""Judges that need no model."""


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
    """A stage's workers. A model takes long to load and much room: each is loaded once a stage."""

    def __init__(self, plan: Plan, lab: Lab) -> None:
        self.plan, self.lab = plan, lab
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def trainer(self) -> Trainer:
        """Who finetunes."""
        made: Trainer = getattr(self, f"_{self.plan.experiment.trainer}_trainer")()
        return made

    def check_questions(self) -> None:
        """Raises QuestionError for a question that the base cannot be asked: before hours of finetuning, not after."""
        experiment, base = self.plan.experiment, self.plan.base
        if base.is_hosted or experiment.asker != "local":
            return
        tokenizer = models.load_tokenizer(base.path)
        for question in self.plan.questions.values():
            local_asker.question_ids(tokenizer, question, experiment.chat)

    def check_rows(self, jobs: Iterable[Job]) -> None:
        """Raises DataError or BaseError for a row that cannot be learned, of whichever run: before the first begins."""
        experiment = self.plan.experiment
        if experiment.trainer == "local":
            for group, job in {job.run.group: job for job in jobs}.items():
                self.trainer.check(job, experiment.training(group))  # type: ignore[attr-defined]  # the local one's

    def asker(self, checkpoint: Checkpoint) -> Asker:
        """Who answers for a checkpoint: this process, or the provider of its model."""
        if self._is_elsewhere(checkpoint):
            asker: Asker = self._provider_asker
        else:
            asker = self._asker_beside if self._is_shared else self._local_asker
        return asker

    def _is_elsewhere(self, checkpoint: Checkpoint) -> bool:
        model = checkpoint.model(self.lab)
        hosted = isinstance(model, str) or (model is None and self.plan.base.is_hosted)
        return hosted or self.plan.experiment.asker == "vllm"

    def inspected(self, checkpoint: Checkpoint) -> tuple[Any, int]:
        """A checkpoint's model as Inspect's, new each time, and how many samples may be under way at once."""
        experiment, model = self.plan.experiment, checkpoint.model(self.lab)
        if self._is_elsewhere(checkpoint):
            ref = serving.served_ref(self._base_ref, model) if isinstance(model, Path) else (model or self._base_ref)
            made = self._provider_model(ref.removeprefix(API), experiment.sampling, checkpoint.key)
            return made, experiment.requests.connections
        folder = model if isinstance(model, Path) else None
        local = inspected.Local(self._local_asker, folder, checkpoint.key, context_length(self.plan.base.path))
        most = self.plan.memory.answers
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
        found: Effect | None = getattr(self.asker(checkpoint), "effects", {}).get(model)
        return dataclasses.asdict(found) if found is not None else None

    def judge(self, rubric: Rubric) -> Judge:
        """Who judges by a rubric."""
        return self._model_judge if rubric.by == "model" else _OTHERS[rubric.by]

    @cached_property
    def _access(self) -> Access:
        return self._open.enter_context(open_access(self.lab.root / PROVIDERS, self.plan.experiment.requests))

    @property
    def _is_shared(self) -> bool:
        """Whether several processes do the local work; a card is one process's."""
        return self.plan.experiment.machine.processes > 1 and self.plan.memory.where == "cpu"

    def _crew(self, make: Callable[..., Any], *what: Any) -> Any:
        """Processes that end with this stage."""
        made = make(self.plan.experiment.machine.processes, *what)
        self._open.callback(made.close)
        return made

    def _asking(self) -> tuple[Any, ...]:
        """What a local asker is made of."""
        experiment, memory = self.plan.experiment, self.plan.memory
        how = (experiment.train.precision, experiment.chat, experiment.machine)
        return self.plan.base.fetched(), *how, memory.answers, memory.written

    @cached_property
    def _local_asker(self) -> Any:
        return local_asker.LocalAsker(*self._asking())

    @cached_property
    def _asker_beside(self) -> Any:
        return beside.CrewAsker(self._crew(beside.askers, *self._asking()))

    @cached_property
    def _provider_asker(self) -> Any:
        """One asker for all providers' models, and with `asker: vllm` for the base and its adapters."""
        asker = provider_asker.ProviderAsker(self._base_ref, self._access, adapters=self._adapters)
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
    def _model_judge(self) -> Judge:
        judge = self.plan.judge
        assert judge is not None, "a plan with a rubric for models has a judge"
        experiment = self.plan.experiment
        how = (judge, experiment.train.precision, experiment.machine)
        if judge.is_hosted:
            return make_judge(*how, self._access)
        if self._is_shared:
            shared: Judge = beside.CrewJudge(self._crew(beside.judges, partial(make_judge, *how)))
            return shared
        return make_judge(*how)

    def _local_trainer(self) -> Any:
        experiment = self.plan.experiment
        how = (experiment.train.precision, experiment.chat, experiment.machine, self.plan.memory)
        if self._is_shared:
            return beside.CrewTrainer(self._crew(beside.trainers, self.plan.base, *how))
        return local_trainer.LocalTrainer(self.plan.base, *how)

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
