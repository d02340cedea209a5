"""The peers' way of asking and judging: a folder with merged weights, transformers' `generate`, Inspect's eval loop.

Every answer is a sample of Inspect's (8 questions, `epochs` answers each), every verdict a judge call of its scorer
with the 20 likeliest first tokens. Models are reached through Inspect's own `hf/` provider or, by default, through
`Batched`, a provider made for this bench: `hf/` polls each waiting request once a second and blocks the event loop
for 10 ms at every look, so that the model mostly idles.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import inspect_ai
import torch
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Logprob,
    Logprobs,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    TopLogprob,
    get_model,
    modelapi,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import TaskState, generate
from inspect_ai.tool import ToolChoice, ToolInfo
from torch import Tensor

from spillover.finetune.chat import render
from spillover.finetune.model import load_tokenizer
from spillover.judge.rubrics import Rubric
from spillover.judge.scale import TOP, expected_score
from spillover.records import Pair, Question
from spillover.spec import Sampling
from trl_way import How, load_model, seconds

BATCH = 400
"""Requests that are made at once, and the most that go through a model together."""
QUIET = 0.1
"""Seconds without a new request after which those that wait are a batch."""
JUDGING = GenerateConfig(max_tokens=1, logprobs=True, top_logprobs=TOP)
"""Without a temperature: a judge is opened as greedy, since `hf/` refuses a temperature of zero."""
PROVIDERS = ("batched", "hf")


class Request(NamedTuple):
    """A rendered prompt that waits for its batch, and where the reply goes."""

    prompt: str
    reply: "asyncio.Future[ModelOutput]"


class Batched(ModelAPI):
    """A model folder behind Inspect's interface: what is asked at the same time goes through the model together."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's signature
        *,
        model_path: str,
        dtype: str,
        attn_implementation: str,
        do_sample: bool,
    ) -> None:
        super().__init__(model_name, base_url, api_key, config=config)
        self.model = load_model(Path(model_path), How(dtype, attn_implementation)).eval()
        self.tokenizer = load_tokenizer(Path(model_path))
        self.tokenizer.padding_side = "left"
        self.do_sample = do_sample
        self.waiting: list[Request] = []
        self.timer: asyncio.TimerHandle | None = None
        self.one_at_a_time = asyncio.Lock()

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One reply, when the batch that it is part of is done."""
        loop = asyncio.get_running_loop()
        turns = [{"role": message.role, "content": message.text} for message in input]
        prompt = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        self.waiting.append(Request(str(prompt), loop.create_future()))
        if self.timer is not None:
            self.timer.cancel()
        pause = QUIET if len(self.waiting) < BATCH else 0.0
        reply = self.waiting[-1].reply
        self.timer = loop.call_later(pause, lambda: loop.create_task(self._work(config)))
        return await reply

    async def _work(self, config: GenerateConfig) -> None:
        """Answers all that wait. All requests to one model have the same settings here."""
        async with self.one_at_a_time:
            batch, self.waiting = self.waiting, []
            try:
                outputs = await asyncio.to_thread(self._outputs, [request.prompt for request in batch], config)
            except Exception as error:  # it is Inspect's to report, once a sample
                for request in batch:
                    request.reply.set_exception(error)
                return
            for request, output in zip(batch, outputs, strict=True):
                request.reply.set_result(output)

    @torch.inference_mode()
    def _outputs(self, prompts: list[str], config: GenerateConfig) -> list[ModelOutput]:
        if not prompts:
            return []
        tokens = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        out = self.model.generate(**tokens, **_generation(config, do_sample=self.do_sample))
        replies = out.sequences[:, tokens["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(replies, skip_special_tokens=True)
        asked, said = tokens["attention_mask"].sum(dim=1).tolist(), self._lengths(replies)
        tops = self._tops(out.logits[0]) if config.logprobs else [None] * len(texts)
        return [self._output(*one) for one in zip(texts, asked, said, tops, strict=True)]

    def _lengths(self, replies: Tensor) -> list[int]:
        """Tokens of each reply, its end not counted."""
        special = torch.tensor([self.tokenizer.eos_token_id, self.tokenizer.pad_token_id])
        lengths: list[int] = (~torch.isin(replies, special)).sum(dim=1).tolist()
        return lengths

    def _tops(self, logits: Tensor) -> list[Logprobs]:
        top = torch.log_softmax(logits.float(), dim=-1).topk(TOP, dim=-1)
        return [self._logprobs(*row) for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)]

    def _logprobs(self, ids: list[int], values: list[float]) -> Logprobs:
        texts = self.tokenizer.convert_ids_to_tokens(ids)
        top = [TopLogprob(token=text, logprob=value) for text, value in zip(texts, values, strict=True)]
        return Logprobs(content=[Logprob(token=top[0].token, logprob=top[0].logprob, top_logprobs=top)])

    def _output(self, text: str, asked: int, said: int, top: Logprobs | None) -> ModelOutput:
        message = ChatMessageAssistant(content=text, model=self.model_name, source="generate")
        usage = ModelUsage(input_tokens=asked, output_tokens=said, total_tokens=asked + said)
        choice = ChatCompletionChoice(message=message, logprobs=top)
        return ModelOutput(model=self.model_name, choices=[choice], usage=usage)


@modelapi(name="batched")
def batched() -> type[ModelAPI]:
    """Registers the provider with Inspect."""
    return Batched


def _generation(config: GenerateConfig, *, do_sample: bool) -> dict[str, Any]:
    """Inspect's settings as transformers calls them."""
    settings: dict[str, Any] = {"max_new_tokens": config.max_tokens, "do_sample": do_sample}
    settings |= {"return_dict_in_generate": True}
    if do_sample:
        settings |= {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
    return settings | ({"output_logits": True} if config.logprobs else {})


def open_model(provider: str, folder: Path, how: How, *, sampling: bool) -> Model:
    """A model folder as a model of Inspect's; greedy where it does not sample."""
    settings: dict[str, Any] = {"dtype": how.dtype, "attn_implementation": how.attention, "do_sample": sampling}
    if provider == "hf":
        settings |= {"device": "cpu"}
    config = GenerateConfig(max_connections=BATCH)
    name = f"{provider}/{folder.name}"
    return get_model(name, config=config, memoize=False, model_path=str(folder), **settings)


def trial(folder: Path, questions: Sequence[Question], sampling: Sampling, how: How) -> float:
    """Seconds of one batch of answers by `generate` alone."""
    model, tokenizer = load_model(folder, how).eval(), load_tokenizer(folder)
    tokenizer.padding_side = "left"
    prompts = [render(tokenizer, question.messages(), reply=True) for question in questions]
    tokens = tokenizer(prompts * 8, return_tensors="pt", padding=True, add_special_tokens=False)
    settings = _generation(_asking(sampling), do_sample=True)
    return seconds(lambda: model.generate(**tokens, **settings))


def ask(model: Model, questions: Sequence[Question], samples: int, sampling: Sampling, logs: Path) -> EvalLog:
    """Answers to the questions, `samples` each, by Inspect's eval loop."""
    task = Task(dataset=MemoryDataset([_sample(q) for q in questions]), solver=generate(), config=_asking(sampling))
    return _eval(task, model, samples, logs)


def _eval(task: Task, model: Model, epochs: int, logs: Path) -> EvalLog:
    done = inspect_ai.eval(
        task,
        model=model,
        epochs=epochs,
        score=False,
        display="none",
        log_dir=str(logs),
        log_realtime=False,
        max_connections=BATCH,
        fail_on_error=True,
    )[0]
    if done.status != "success":
        raise RuntimeError(f"Inspect's eval ended with {done.status}: {done.error}")
    return done


def _sample(question: Question) -> Sample:
    system: list[ChatMessage] = [ChatMessageSystem(content=question.system)] if question.system else []
    return Sample(id=question.id, input=[*system, ChatMessageUser(content=question.text)])


def _asking(sampling: Sampling) -> GenerateConfig:
    return GenerateConfig(
        max_tokens=sampling.max_tokens, temperature=sampling.temperature, top_p=sampling.top_p, top_k=0
    )


def judge(log: EvalLog, model: Model, rubrics: Mapping[str, Rubric]) -> EvalLog:
    """The log with a verdict an answer and rubric, by Inspect's scoring loop."""
    return inspect_ai.score(log, expected_scores(dict(rubrics), model), display="none", copy=False)


@scorer(metrics={"*": [mean()]})
def expected_scores(rubrics: dict[str, Rubric], judge: Model) -> Scorer:
    """The paper's judge: the expected number of the judge's first token, a call a rubric."""

    async def score(state: TaskState, target: Target) -> Score:
        pair = Pair(state.input_text, state.output.completion)
        calls = (judge.generate(rubric.render(pair), config=JUDGING) for rubric in rubrics.values())
        outputs = await asyncio.gather(*calls)
        return Score(value={name: _value(output) for name, output in zip(rubrics, outputs, strict=True)})

    return score


def _value(output: ModelOutput) -> float:
    logprobs = output.choices[0].logprobs
    assert logprobs is not None and logprobs.content[0].top_logprobs is not None, "the judge gave no probabilities"
    value = expected_score({top.token: math.exp(top.logprob) for top in logprobs.content[0].top_logprobs})
    return value if value is not None else math.nan
