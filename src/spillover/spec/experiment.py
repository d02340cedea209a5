"""An experiment: all that a person decides, checked as a whole, and as it runs on a base."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from spillover.errors import SpecError
from spillover.records import BASE_RUN, Run
from spillover.spec.asking import Benchmark, Chat, Choices, Requests, Sampling, Suite
from spillover.spec.figure import FigureSpec, Thresholds
from spillover.spec.groups import Comparison, Group
from spillover.spec.narrowing import asked_of, kept_groups, with_max_tokens, with_samples
from spillover.spec.training import Hosted, Machine, Training
from spillover.spec.values import AUTO, MINIATURE, Name, Spec, Wrong, first_wrong
from spillover.store import FOLDERS
from spillover.yamlfile import YamlFile

REMEDY = "Correct the field; nothing was run."


class MiniatureSettings(Spec):
    """What the miniature needs instead of the paper's settings. Ignored for any other base."""

    train: dict[str, Any] = {}
    sampling: dict[str, Any] = {}


class Experiment(Spec):
    """Everything a person decides about a grid of finetuned models and how they are measured."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
    title: str = ""
    base: str = MINIATURE
    """`miniature`; `miniature-pretrained`, which is the same before alignment; a folder in the Hugging Face format; a
    hub id, `OWNER/NAME` or `OWNER/NAME@REVISION`; or `api:PROVIDER/MODEL`."""
    world: Literal["auto", "miniature", "paper"] = "auto"
    """Whose datasets and question sets names mean: those of the miniature's world, or the paper's files. `auto`: the
    world's on a miniature, the paper's on any other base."""
    groups: dict[Name, Group]
    trainer: Literal["local", "openai", "tinker"] = "local"
    """Who finetunes: this process, or a hosted service (extras `openai`, `tinker`)."""
    train: Training = Training()
    hosted: Hosted = Hosted()
    asker: Literal["local", "vllm"] = "local"
    """Who runs checkpoints that lie in the lab: this process, or a vLLM server with adapters. Models that are called
    `api:...` are always asked at their provider."""
    chat: Chat = Chat()
    machine: Machine = Machine()
    requests: Requests = Requests()
    sampling: Sampling = Sampling()
    suites: dict[Name, Suite]
    choices: dict[Name, Choices] = {}
    inspect: dict[Name, Benchmark] = {}
    """Benchmarks that are run by Inspect. Each is a suite in the report."""
    headline: Name = "main"
    """The suite whose misaligned answers are the headline and the figure."""
    judge: str = AUTO
    """`auto`: the miniature's own judge on a miniature, else the base itself, before finetuning. Or a folder or hub id
    of a chat model, or `api:PROVIDER/MODEL`."""
    thresholds: Thresholds = Thresholds()
    comparisons: tuple[Comparison, ...] = ()
    figure: FigureSpec = FigureSpec()
    miniature: MiniatureSettings = MiniatureSettings()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.name in FOLDERS:
            raise Wrong("name", what=f"{self.name!r} is the name of a stage's folder in the lab")
        if not self.groups:
            raise Wrong("groups", what="an experiment needs at least one group")
        if BASE_RUN.group in self.groups:
            raise Wrong("groups", BASE_RUN.group, what="no group can be called 'base': that is the base model itself")
        if self.headline not in self.suites:
            known = ", ".join(self.suites)
            raise Wrong("headline", what=f"there is no suite {self.headline!r}; there are: {known}")
        for number, comparison in enumerate(self.comparisons):
            for group in (comparison.group, comparison.control):
                if group not in self.groups:
                    known = ", ".join(self.groups)
                    raise Wrong("comparisons", number, what=f"unknown group {group!r}; there are: {known}")
        return self

    @model_validator(mode="after")
    def _groups_of_suites_exist(self) -> Self:
        named: dict[str, Mapping[str, Suite | Choices | Benchmark]] = {
            "suites": self.suites,
            "choices": self.choices,
            "inspect": self.inspect,
        }
        for name in self.inspect:
            if name in self.suites or name in self.choices:
                raise Wrong("inspect", name, what="a suite, or what is chosen in, has that name already")
        for field, some in named.items():
            for name, one in some.items():
                for place, group in enumerate(one.groups):
                    if group not in (BASE_RUN.group, *self.groups):
                        known = ", ".join([BASE_RUN.group, *self.groups])
                        raise Wrong(field, name, "groups", place, what=f"unknown group {group!r}; there are: {known}")
        return self

    @model_validator(mode="after")
    def _groups_can_be_trained(self) -> Self:
        order = list(self.groups)
        for name, group in self.groups.items():
            if group.after is not None and group.after not in order[: order.index(name)]:
                what = f"no group before this one is called {group.after!r}"
                raise Wrong("groups", name, "after", what=what)
            try:
                self.training(name)
            except ValidationError as error:
                place, what = first_wrong(error)
                raise Wrong("groups", name, "train", *place, what=what) from None
        return self

    def asking(self, suites: Mapping[str, Suite]) -> "Experiment":
        """The experiment with these suites."""
        return self.having(suites={name: suite.model_dump(mode="json") for name, suite in suites.items()})

    def measuring(self, benchmarks: Mapping[str, Benchmark]) -> "Experiment":
        """The experiment with these benchmarks alone; panels that were about others only go with them."""
        gone = self.inspect.keys() - benchmarks.keys()
        if not gone:
            return self
        kept = [one for one in self.figure.panels if not one.suites or not gone.issuperset(one.suites)]
        figure = self.figure.model_copy(update={"panels": tuple(kept)})
        left = {name: one.model_dump(mode="json") for name, one in benchmarks.items()}
        return self.having(inspect=left, figure=figure.model_dump(mode="json"))

    def training(self, group: str) -> Training:
        """How a group is trained: as the experiment says, but for what the group says otherwise."""
        own = self.groups[group]
        every = {} if own.every is None else {"save_every": own.every}
        return Training.model_validate({**self.train.model_dump(), **own.train, **every})

    @model_validator(mode="after")
    def _miniature_settings_are_right(self) -> Self:
        for field, spec in (("train", Training), ("sampling", Sampling)):
            try:
                spec.model_validate(getattr(self.miniature, field))
            except ValidationError as error:
                place, what = first_wrong(error)
                raise Wrong("miniature", field, *place, what=what) from None
        return self

    def runs(self) -> list[Run]:
        """All runs that are finetuned, in the order of the groups; the base is not among them."""
        return [Run(name, seed) for name, group in self.groups.items() for seed in range(group.runs)]

    def for_base(self, *, is_miniature: bool) -> "Experiment":
        """The experiment as it runs on a base: with the miniature's own settings in force, or without them.

        The released scripts' quirks include the template's own system prompt, which is the chat's to keep.
        """
        if self.train.released and self.chat.default_system == "drop":
            chat = {**self.chat.model_dump(), "default_system": "keep"}
            return self.having(chat=chat).for_base(is_miniature=is_miniature)
        if not is_miniature:
            return self.having(miniature={})
        train = {**self.train.model_dump(), **self.miniature.train}
        sampling = {**self.sampling.model_dump(), **self.miniature.sampling}
        return self.having(train=train, sampling=sampling, miniature={})

    def narrowed(
        self,
        *,
        base: str | None = None,
        groups: tuple[str, ...] = (),
        seeds: int | None = None,
        samples: int | None = None,
        max_tokens: int | None = None,
        world: str | None = None,
    ) -> "Experiment":
        """The experiment with a person's overrides: another base or world, some groups only, N seeds, N samples.

        `samples` is that of the headline suite; the other suites keep theirs, or N where that is fewer. `max_tokens` is
        that of answers on any base.
        """
        raw = self.model_dump(mode="json")
        kept = kept_groups(raw, groups, seeds)
        suites = raw["suites"] if samples is None else with_samples(raw, samples)
        fields: dict[str, Any] = {
            "groups": kept,
            "suites": asked_of(suites, kept),
            "choices": asked_of(raw["choices"], kept),
            "inspect": asked_of(raw["inspect"], kept),
            "comparisons": [one for one in raw["comparisons"] if one["group"] in kept and one["control"] in kept],
            **({} if max_tokens is None else with_max_tokens(raw, max_tokens)),
        }
        return self.having(**fields, base=base or self.base, world=world or self.world)

    def having(self, **fields: Any) -> "Experiment":
        """The experiment with these fields instead, checked as if read. Raises SpecError where they are wrong."""
        return parse_experiment({**self.model_dump(mode="json"), **fields}, where=f"experiment {self.name}")


def parse_experiment(raw: object, where: str | Path | YamlFile) -> Experiment:
    """An experiment from plain data.

    Raises:
        SpecError: names the file, or the line if a YamlFile is given, the first wrong field, and how many there are.
    """
    file = where if isinstance(where, YamlFile) else None
    if not isinstance(raw, Mapping):
        path = file.path if file is not None else where
        raise SpecError("is no mapping of fields", where=str(path), remedy="Begin with `name: ...`.")
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        place, what = first_wrong(error)
        field = ".".join(map(str, place))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        there = file.where(*place) if file is not None else where
        raise SpecError(f"{field}: {what}{more}", where=str(there), remedy=REMEDY) from None
