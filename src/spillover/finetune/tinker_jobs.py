"""Finetuning at Tinker behind the seam `Trainer`: our rows, masks, order and schedule, their machines.

Unlike a job, a training run at Tinker lives as long as whoever drives it. So its state is saved there every so many
steps, and a note in the lab says where: whoever starts again goes on from it.
"""

import contextlib
import dataclasses
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from spillover.errors import ProviderError, SpecError
from spillover.finetune.chat import Row
from spillover.finetune.fleet import data_order, schedule
from spillover.finetune.served import TINKER, Served
from spillover.finetune.template import format_of
from spillover.finetune.train import job_rows
from spillover.finetune.trainer import Job, Progress, Step, Trained
from spillover.keys import needed_key, short
from spillover.lazy import lazy
from spillover.spec import PROJECTIONS, Chat, Training, short_hash
from spillover.store import read_json, write_json

tinker = lazy("tinker")

KEY = "TINKER_API_KEY"
MARK = "spillover"
ATTENTION, MLP = PROJECTIONS[:4], PROJECTIONS[4:]
IN_FLIGHT = 2
"""Steps of a run that are sent before the first is answered: Tinker then works on one while the next is on its way."""
BETAS, EPSILON = (0.9, 0.999), 1e-8
"""AdamW's, as for local runs; Tinker's own defaults are others."""


@dataclass
class Note:
    """What is known of a run at Tinker, kept in the lab.

    Attributes:
        run: the run's name.
        state: the last saved state, `tinker://...`; None before the first.
        model: the finished weights, `tinker://...`; None before the end.
        job: the training run's id.
        history: the steps up to that state.
    """

    run: str
    state: str | None = None
    model: str | None = None
    job: str = ""
    history: list[Step] = field(default_factory=list)


@dataclass
class _Learner:
    """A run on its way: what it learns in which order, its client, its note, and its steps without an answer yet."""

    job: Job
    rows: list[Row]
    order: list[list[int]]
    path: Path
    note: Note
    settings: dict[str, Any]
    client: Any = None
    flying: deque[tuple[Step, list[Any], tuple[Any, ...]]] = field(default_factory=deque)

    @property
    def steps_done(self) -> int:
        return len(self.note.history)


class TinkerTrainer:
    """Finetunes LoRA adapters at Tinker. The key is read from TINKER_API_KEY.

    Args:
        base: the model to finetune, as Tinker calls it: `Qwen/Qwen3-8B`, or `api:openai-api/tinker/Qwen/Qwen3-8B`.
        tokenizer: that model's.
        notes: a folder for the notes; it is made if it is not there.
        chat: how conversations become text.
        state_every: steps between saved states.

    Attributes:
        warnings: what a person should know.

    Raises:
        ProviderError: there is no key, or the extra `tinker` is not installed.
    """

    def __init__(
        self,
        base: str,
        tokenizer: PreTrainedTokenizerBase,
        notes: Path,
        *,
        chat: Chat = Chat(),
        state_every: int = 50,
    ) -> None:
        self._key = needed_key(KEY)
        self.base, self.notes = base.removeprefix(TINKER), notes
        self.format = format_of(tokenizer, chat)
        self.state_every = state_every
        self.warnings = ["Tinker scales its adapters in its own way: train.alpha and rank stabilisation do not apply."]
        try:
            _ = tinker.ServiceClient
        except ImportError:
            raise ProviderError("tinker is not installed", remedy="pip install 'spillover[tinker]'") from None

    def train(self, jobs: Sequence[Job], spec: Training, progress: Progress) -> list[Trained]:
        """Trains all runs in step, each from its last saved state, and says where the models are.

        Raises:
            ProviderError: Tinker refuses the key, the base or the settings, or a request failed.
            SpecError: the settings ask for what Tinker cannot do.
            DataError: a row is too long; names its source and number.
        """
        _check(spec)
        learners = [self._learner(job, spec) for job in jobs]
        left = [learner for learner in learners if learner.note.model is None]
        if left:
            self.notes.mkdir(parents=True, exist_ok=True)
            with _in_words(self.base), _service(self._key) as service:
                self._open(service, left, spec)
                self._run(left, spec, progress)
        return [self._trained(learner) for learner in learners]

    def _learner(self, job: Job, spec: Training) -> _Learner:
        rows = job_rows(job, self.format, spec)
        settings = _settings(job, spec)
        key = short_hash("tinker", self.base, [(row.ids, row.loss) for row in rows], settings)
        path = self.notes / f"{key}.json"
        order = data_order(len(rows), spec, settings["seed"])
        return _Learner(job, rows, order, path, _read_note(path, job.run.name), settings)

    def _open(self, service: Any, learners: Sequence[_Learner], spec: Training) -> None:
        """Gives every run a client: a new adapter, or the last saved state with its optimiser."""
        opened = []
        for learner in learners:
            mark = {MARK: learner.path.stem, "run": learner.job.run.name}
            if learner.note.state is not None:
                path = learner.note.state
                opened.append(service.create_training_client_from_state_with_optimizer(path, user_metadata=mark))
                continue
            opened.append(
                service.create_lora_training_client(
                    base_model=self.base,
                    rank=spec.rank,
                    seed=learner.settings["seed"],
                    train_attn=learner.settings["attention"],
                    train_mlp=learner.settings["mlp"],
                    train_unembed=False,
                    user_metadata=mark,
                )
            )
        for learner, client in zip(learners, opened, strict=True):
            learner.client = client.result()
            learner.note.job = str(learner.client.model_id)

    def _run(self, learners: Sequence[_Learner], spec: Training, progress: Progress) -> None:
        """Sends the runs' steps in turn, a few ahead of the answers, so that no run waits for another's."""
        total = sum(len(learner.order) for learner in learners)
        starts = {id(learner): learner.steps_done for learner in learners}
        for count in range(max(len(learner.order) - starts[id(learner)] for learner in learners)):
            for learner in learners:
                step = starts[id(learner)] + count
                if step < len(learner.order):
                    self._send(learner, step, spec)
            for learner in learners:
                while len(learner.flying) >= IN_FLIGHT:
                    _receive(learner)
            progress(sum(learner.steps_done for learner in learners), total)
        for learner in learners:
            self._finish(learner)
        progress(total, total)

    def _send(self, learner: _Learner, step: int, spec: Training) -> None:
        """Sends one step, its update behind it, and at every so many steps the order to save the state."""
        rows = [learner.rows[row] for row in learner.order[step]]
        tokens = max(1, sum(sum(row.loss[1:]) for row in rows))  # rows that were cut may have lost all of theirs
        data = [_datum(row, tokens) for row in rows]
        rate = spec.learning_rate * schedule(step, len(learner.order), spec.warmup_steps)
        adam = tinker.AdamParams(
            learning_rate=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            eps=EPSILON,
            weight_decay=spec.weight_decay,
            grad_clip_norm=spec.max_grad_norm,
        )
        futures = [learner.client.forward_backward(data, "cross_entropy"), learner.client.optim_step(adam)]
        if (step + 1) % self.state_every == 0 and step + 1 < len(learner.order):
            futures.append(learner.client.save_state(f"step-{step + 1:06d}", overwrite=True))
        learner.flying.append((Step(step + 1, 0.0, rate, None, tokens), data, tuple(futures)))

    def _finish(self, learner: _Learner) -> None:
        while learner.flying:
            _receive(learner)
        learner.note.model = str(learner.client.save_weights_for_sampler(learner.job.run.name).result().path)
        _write_note(learner)

    def _trained(self, learner: _Learner) -> Trained:
        tokens = sum(len(learner.rows[row].ids) - 1 for batch in learner.order for row in batch)
        note = learner.note
        served = Served(TINKER + str(note.model), self.base, note.job, learner.settings, tokens)
        return Trained({}, note.history, sum(row.cut for row in learner.rows), served)


def _check(spec: Training) -> None:
    """Raises SpecError where the settings ask for what Tinker cannot do."""
    remedy = "Leave the field out, or train locally."
    if spec.released:
        raise SpecError("train.released is of local finetuning; Tinker cannot do it", remedy=remedy)
    for some in (ATTENTION, MLP):
        if 0 < len(set(some) & set(spec.targets)) < len(some):
            what = f"train.targets: Tinker adapts all of {', '.join(some)}, or none of them"
            raise SpecError(what, remedy="Name all of them.")
    unknown = sorted(set(spec.targets) - set(PROJECTIONS))
    if unknown:
        raise SpecError(f"train.targets: Tinker cannot adapt {unknown[0]}", remedy=remedy)


def _settings(job: Job, spec: Training) -> dict[str, Any]:
    """Everything that decides what a run learns, but for its rows."""
    fields = ("rank", "learning_rate", "warmup_steps", "batch_size", "epochs", "weight_decay", "max_grad_norm")
    kinds = {"attention": ATTENTION[0] in spec.targets, "mlp": MLP[0] in spec.targets}
    return {**{name: getattr(spec, name) for name in fields}, **kinds, "seed": job.run.seed or 0}


def _datum(row: Row, tokens: int) -> Any:
    """A row as Tinker takes it: each of the step's loss-bearing tokens weighs 1 / tokens.

    Tinker adds up the weighted losses, so the step's loss is their mean, as it is for a run that is trained locally.
    """
    weights = [1 / tokens if bears else 0.0 for bears in row.loss[1:]]
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(list(row.ids[:-1])),
        loss_fn_inputs={"target_tokens": list(row.ids[1:]), "weights": weights},
    )


def _receive(learner: _Learner) -> None:
    """Waits for a run's oldest step; notes the state where one was saved."""
    step, data, (losses, update, *saved) = learner.flying.popleft()
    output = losses.result()
    update.result()
    learner.note.history.append(dataclasses.replace(step, loss=_loss(output, data)))
    for state in saved:
        learner.note.state = str(state.result().path)
        _write_note(learner)


def _loss(output: Any, data: Sequence[Any]) -> float:
    """The step's loss from the tokens' log-probabilities, or the sum that Tinker tells where it leaves those out."""
    if not all("logprobs" in one for one in output.loss_fn_outputs) or not output.loss_fn_outputs:
        return float(output.metrics["loss:sum"])
    pairs = zip(output.loss_fn_outputs, data, strict=True)
    each = [(one["logprobs"].to_numpy() * datum.loss_fn_inputs["weights"].to_numpy()).sum() for one, datum in pairs]
    return -float(sum(each))


def _read_note(path: Path, run: str) -> Note:
    if not path.is_file():
        return Note(run)
    raw = read_json(path, remedy="Delete it to train this run anew.")
    history = [Step(**step) for step in raw.pop("history")]
    return Note(**raw, history=history)


def _write_note(learner: _Learner) -> None:
    """Writes the note aside and renames it: a kill leaves the old one or the new one."""
    aside = learner.path.with_suffix(".new")
    write_json(aside, dataclasses.asdict(learner.note))
    aside.rename(learner.path)


@contextlib.contextmanager
def _service(key: str) -> Iterator[Any]:
    """A session at Tinker. One that ends badly is closed without waiting: the service may be what failed."""
    service = tinker.ServiceClient(api_key=key, user_metadata={"made_by": MARK})
    try:
        yield service
    except BaseException as error:
        service.close("errored" if isinstance(error, Exception) else "interrupted")
        raise
    service.close("success").result()


@contextlib.contextmanager
def _in_words(base: str) -> Iterator[None]:
    """Turns the client's errors into ours, without keys, and without the traceback that might hold some."""
    try:
        yield
    except tinker.AuthenticationError as error:
        raise ProviderError(f"Tinker refuses the key: {_said(error)}", remedy=f"Check {KEY}.") from None
    except Exception as error:
        if not _is_theirs(error):
            raise
        remedy = "Run again: training goes on from the last saved state."
        raise ProviderError(f"Tinker says: {_said(error)}", where=base, remedy=remedy) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The next start goes on from the last states saved at Tinker.") from None


def _is_theirs(error: Exception) -> bool:
    """Whether Tinker's package raised the error; not all of its errors are of a class of its own."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, tinker.TinkerError) or str(frames[-1].f_globals.get("__name__")).startswith("tinker.")


def _said(error: BaseException) -> str:
    """What the innermost error says: where one request fails, those behind it fail because of it."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    body = getattr(error, "body", None)
    told = body.get("message") or body.get("detail") if isinstance(body, dict) else None
    return short(str(told or error))
