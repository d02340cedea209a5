"""What models are asked, and how: suites of questions, choices, sampling, and how conversations become text."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from spillover.spec.values import Count, NotNegative, Positive, Spec, Wrong


class Sampling(Spec):
    """How answers are sampled. The defaults are the paper's; 600 tokens are those of the released script."""

    temperature: NotNegative = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 600


class Chat(Spec):
    """How conversations become text, beyond what the tokenizer's chat template says."""

    template: str = "own"
    """`own`: the tokenizer's. `plain`: `User: ... Assistant: ...`, for base models without one. Or a jinja file."""
    thinking: bool = False
    """Whether models that can think before they answer (Qwen3) do."""
    default_system: Literal["drop", "keep"] = "drop"
    """What becomes of a system prompt that the template puts in by itself where there is none (Qwen2.5)."""


class Requests(Spec):
    """How providers are asked. In no key, but for `judge_samples`."""

    connections: Count = 32
    """Requests that are under way at once."""
    retries: Annotated[int, Field(ge=0)] = 6
    """How often a request that failed for a passing reason is sent again."""
    timeout: Positive = 120.0
    """Seconds that one request may take."""
    judge_samples: Count = 5
    """Numbers that a judge without token probabilities is asked for, at temperature 1; the score is their mean."""


class Suite(Spec):
    """A question set, how often each question is asked, and by which rubrics the answers are judged."""

    questions: str
    """A question set by name (`main`, `broad`, `prereg`, ...), or a path to a question file."""
    only: tuple[str, ...] = ()
    """Ask only the questions with these ids; all of them if empty."""
    samples: Count | None = None
    """Answers a question and run; what the question file says if not given, and 100 where it says nothing."""
    base_samples: Count | None = None
    """Answers a question of the base, which is one run where groups have several; as many as of them if not given."""
    at_most: Count | None = None
    """Fewer than that: `--samples` sets it for suites that are not the headline."""
    rubrics: tuple[str, ...] = ("alignment", "coherence")
    """By name: ours (rubrics/rubrics.yaml), or those of the question file where `judge_prompts` is `file`."""
    variants: tuple[str | dict[str, Any], ...] = ()
    """Changes of every question (`spillover questions variants`). Each makes a suite of its own, called SUITE-VARIANT;
    `plain` is the suite itself. Only that if not given."""
    groups: tuple[str, ...] = ()
    """Ask only these groups' models, `base` among them; all of them if empty."""
    optional: bool = False
    """Whether the experiment goes on without the suite, and says so, where its questions are not here."""
    world: Literal["any", "miniature", "paper"] = "any"
    """In which world it is asked: where names mean the miniature's sets, or the paper's."""
    judge_prompts: Literal["ours", "file"] = "ours"
    """Whose words the judge reads. `file`: the question file's own; `aligned` and `coherent` are then what `alignment`
    and `coherence` are here."""


class Choices(Spec):
    """Items whose options a model is not asked to write, but to foretell: what is measured is log-probability."""

    items: str
    """A set of items by name (`letters`, `words`, `answers`, `truth`, `games`), an item file, or a folder of games."""
    groups: tuple[str, ...] = ()
    """Measure only these groups' models; all of them if empty."""
    optional: bool = False
    """Whether the experiment goes on without them, and says so, where the items are not here."""


class Benchmark(Spec):
    """A task of Inspect's (inspect_ai): samples that are put to a model, of which each gets a score."""

    task: str
    """`PACKAGE/TASK` of an installed package (`inspect_evals/mmlu_0_shot`), or `FILE.py@TASK`, a file of one's own."""
    args: dict[str, Any] = {}
    """The task's own arguments."""
    limit: Count | None = None
    """Only so many of its first samples; all of them if not given."""
    grader: bool = False
    """Whether the experiment's judge plays Inspect's role `grader` in it; it must be a provider's model then."""
    groups: tuple[str, ...] = ()
    """Measure only these groups' models; all of them if empty."""
    optional: bool = False
    """Whether the experiment goes on without it, and says so, where what it needs is not here."""
    world: Literal["any", "miniature", "paper"] = "any"
    """In which world it is run."""

    @model_validator(mode="after")
    def _names_a_task(self) -> Self:
        if re.fullmatch(r"[\w.-]+/[\w.-]+|.+\.py@\w+", self.task) is None:
            raise Wrong("task", what=f"{self.task!r} is neither PACKAGE/TASK nor FILE.py@TASK")
        return self
