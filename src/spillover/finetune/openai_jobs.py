"""Finetuning at OpenAI behind the seam `Trainer`: one job a run, found again by its metadata, never started twice.

Every job carries a key of what it learns from and how: {"spillover": key, "run": name}. Jobs are listed before one is
created, so whoever starts again, on whatever machine, finds what runs or has run already.
"""

import base64
import contextlib
import csv
import hashlib
import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spillover.errors import ProviderError, SpecError
from spillover.finetune.served import OPENAI, Served
from spillover.finetune.trainer import Job, Progress, Step, Trained
from spillover.keys import needed_key, short
from spillover.lazy import lazy
from spillover.spec import Hosted, Training, short_hash

if TYPE_CHECKING:
    from openai.types import Model
    from openai.types.fine_tuning import FineTuningJob

openai = lazy("openai")

KEY = "OPENAI_API_KEY"
MARK = "spillover"
"""The metadata field that holds a job's key."""
PAGE = 100
RETRIES = 5
PATIENCE = 40
"""Rounds in a row in which the provider answers nothing of use, before one gives up."""
LONGEST_PAUSE = 8
"""Polling slows down to this many times the first pause."""
LOST = ("failed", "cancelled")
LONGEST_SUFFIX = 64
NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
KEPT = "The other jobs go on at OpenAI and are found again by the next start."


@dataclass
class _Work:
    """A run on its way.

    Attributes:
        job: the run.
        key: what its job at the provider is found by.
        settings: the hyperparameters and the seed.
        rows: its file, chat JSONL.
        unsure: whether a job may have been created that is not known here.
        remote: its job as last seen.
        losses: training loss by step, as the events tell it.
        last_event: the newest event that was read.
    """

    job: Job
    key: str
    settings: dict[str, Any]
    rows: bytes
    unsure: bool = False
    remote: "FineTuningJob | None" = None
    losses: dict[int, float] = field(default_factory=dict)
    last_event: str = ""

    @property
    def name(self) -> str:
        return self.job.run.name

    @property
    def steps(self) -> int:
        batches: int = -(-len(self.job.rows) // self.settings["batch_size"])
        return batches * int(self.settings["n_epochs"])

    @property
    def is_done(self) -> bool:
        return self.remote is not None and self.remote.status == "succeeded"

    @property
    def steps_done(self) -> int:
        return self.steps if self.is_done else min(max(self.losses, default=0), self.steps)


class OpenAITrainer:
    """Finetunes at OpenAI, or whoever speaks its protocol at OPENAI_BASE_URL. The key is read from OPENAI_API_KEY.

    Args:
        base: the model to finetune, `gpt-4o-mini-2024-07-18` or `api:openai/gpt-4o-mini-2024-07-18`.
        hosted: what this service takes that `Training` does not.
        poll: seconds between the first two looks at the jobs; later pauses are longer.

    Attributes:
        warnings: what a person should know, such as when a model is shut down; filled while training.

    Raises:
        ProviderError: there is no key, or the extra `openai` is not installed.
    """

    def __init__(self, base: str, hosted: Hosted, *, poll: float = 15.0) -> None:
        needed_key(KEY)
        self.base, self.hosted, self.poll = base.removeprefix(OPENAI), hosted, poll
        self.warnings: list[str] = []
        try:
            self.client = openai.OpenAI(max_retries=RETRIES)
        except ImportError:
            raise ProviderError("openai is not installed", remedy="pip install 'spillover[openai]'") from None
        self._jobs: dict[str, FineTuningJob] = {}
        self._files: dict[str, str] | None = None

    def train(self, jobs: Sequence[Job], spec: Training, progress: Progress) -> list[Trained]:
        """Starts every run that is not known to the provider, waits for all, and says where the models are.

        Raises:
            ProviderError: the provider refuses the key, the file or the settings, or a job failed or was cancelled.
            KeyboardInterrupt: with a text that says that the jobs go on.
        """
        if spec.released:
            raise SpecError("train.released is of local finetuning; hosted jobs cannot do it", remedy="Leave it out.")
        works = [self._work(job, spec) for job in jobs]
        with _in_words(self.base):
            base = self._model(self.base)
            end = base.shutdown_date if base is not None else None
            if end:
                self.warnings.append(f"{self.base} is shut down on {end}")
            self._jobs = self._listed_jobs()
            self._wait(works, progress)
            return [self._trained(work, end) for work in works]

    def _work(self, job: Job, spec: Training) -> _Work:
        rows = b"".join(_line(row.as_row(), spec) for row in job.rows)
        settings = {
            "n_epochs": spec.epochs,
            "batch_size": spec.batch_size,
            "learning_rate_multiplier": self.hosted.learning_rate_multiplier,
            "seed": job.run.seed or 0,
        }
        return _Work(job, short_hash("openai", self.base, hashlib.sha256(rows).hexdigest(), settings), settings, rows)

    def _listed_jobs(self) -> dict[str, "FineTuningJob"]:
        """The jobs of ours that run or succeeded, by key."""
        found: dict[str, FineTuningJob] = {}
        for job in self.client.fine_tuning.jobs.list(limit=PAGE):
            key = (job.metadata or {}).get(MARK)
            if key and job.status not in LOST and (key not in found or job.status == "succeeded"):
                found[key] = job
        return found

    def _wait(self, works: Sequence[_Work], progress: Progress) -> None:
        """Looks after all runs in rounds, until every one is done."""
        silent, pause = 0, self.poll
        try:
            while True:
                errors = [self._attend(work) for work in works if not work.is_done]
                progress(sum(work.steps_done for work in works), sum(work.steps for work in works))
                if all(work.is_done for work in works):
                    return
                silent = silent + 1 if all(errors) else 0
                if silent > PATIENCE and errors[0] is not None:
                    raise errors[0]
                time.sleep(pause)
                pause = min(1.5 * pause, LONGEST_PAUSE * self.poll)
        except KeyboardInterrupt:
            count = sum(work.remote is not None for work in works)
            raise KeyboardInterrupt(f"{count} jobs go on at OpenAI and are found again by the next start.") from None

    def _attend(self, work: _Work) -> Exception | None:
        """Starts a run or looks how it gets on. Returns the error if it was one that passes."""
        try:
            if work.remote is None:
                self._start(work)
            else:
                work.remote = self.client.fine_tuning.jobs.retrieve(work.remote.id)
                self._read_events(work)
        except (openai.APIConnectionError, openai.InternalServerError) as error:
            work.unsure = True
            return error  # type: ignore[no-any-return]
        except openai.RateLimitError as error:
            if error.code in NO_MONEY:
                raise
            return error  # type: ignore[no-any-return]
        assert work.remote is not None
        if work.remote.status in LOST:
            raise _lost(work, work.remote)
        return None

    def _start(self, work: _Work) -> None:
        """Finds the run's job, or creates it.

        The client does not send a creation again by itself: one whose reply was lost may have been carried out, so
        the jobs are listed first.
        """
        if work.unsure:
            self._jobs = self._listed_jobs()
        if work.key not in self._jobs:
            self._jobs[work.key] = self._create(work, self._file(work))
        work.remote = self._jobs[work.key]

    def _create(self, work: _Work, file: str) -> "FineTuningJob":
        hyperparameters = {name: value for name, value in work.settings.items() if name != "seed"}
        created: FineTuningJob = self.client.with_options(max_retries=0).fine_tuning.jobs.create(
            model=self.base,
            training_file=file,
            method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
            seed=work.settings["seed"],
            suffix=_suffix(self.hosted.suffix, work.name),
            metadata={MARK: work.key, "run": work.name},
        )
        return created

    def _file(self, work: _Work) -> str:
        """The id of the run's file, which is uploaded unless one with this content is there."""
        name = f"spillover-{hashlib.sha256(work.rows).hexdigest()[:24]}.jsonl"
        if self._files is None:
            files = self.client.files.list(purpose="fine-tune", limit=PAGE)
            self._files = {file.filename: file.id for file in files if file.status != "error"}
        if name not in self._files:
            uploaded = self.client.files.create(file=(name, work.rows), purpose="fine-tune")
            self._files[name] = uploaded.id
        return self._files[name]

    def _read_events(self, work: _Work) -> None:
        """Adds the losses of the events that are new; the provider lists the newest first."""
        assert work.remote is not None
        newest = ""
        for event in self.client.fine_tuning.jobs.list_events(work.remote.id, limit=PAGE):
            if event.id == work.last_event:
                break
            newest = newest or event.id
            data = event.data if isinstance(event.data, dict) else {}
            if event.type == "metrics" and isinstance(data.get("train_loss"), int | float):
                work.losses[int(data["step"])] = float(data["train_loss"])
        work.last_event = newest or work.last_event

    def _trained(self, work: _Work, base_ends: str | None) -> Trained:
        remote = work.remote
        assert remote is not None
        if remote.fine_tuned_model is None:
            raise ProviderError("the job succeeded without a model", where=f"{work.name}, job {remote.id}")
        end = self._end(remote.fine_tuned_model, base_ends)
        self._read_events(work)
        losses = {**work.losses, **self._result_losses(remote)}
        history = [Step(step, losses[step], None, None, None) for step in sorted(losses)]
        model = OPENAI + remote.fine_tuned_model
        served = Served(model, self.base, remote.id, work.settings, remote.trained_tokens, end)
        return Trained({}, history, served=served)

    def _result_losses(self, remote: "FineTuningJob") -> dict[int, float]:
        """Loss by step from the job's result files, which tell every step; the events may tell some only."""
        losses: dict[int, float] = {}
        for file in remote.result_files:
            with contextlib.suppress(openai.NotFoundError):  # such files may be deleted; the events remain
                losses |= _losses_of_table(self.client.files.content(file).content)
        return losses

    def _end(self, tuned: str, base_ends: str | None) -> str | None:
        """The day on which a finetuned model is shut down, if one is announced for it or its base. Warns of news."""
        model = self._model(tuned)
        if model is None:
            self.warnings.append(f"{tuned} is not among OpenAI's models: it may have been deleted")
            return base_ends
        if model.shutdown_date and model.shutdown_date != base_ends:
            self.warnings.append(f"{tuned} is shut down on {model.shutdown_date}")
        return model.shutdown_date or base_ends

    def _model(self, name: str) -> "Model | None":
        """What the provider tells of a model, None if it is not listed."""
        try:
            model: Model = self.client.models.retrieve(name)
        except openai.NotFoundError:
            return None
        return model


def _line(row: dict[str, Any], spec: Training) -> bytes:
    """A row of the file. Where only the last turn bears loss, the assistant's other turns get weight 0."""
    messages = [dict(message) for message in row["messages"]]
    said = [message for message in messages if message["role"] == "assistant"]
    for message in said[:-1] if spec.turns == "last" else ():
        message["weight"] = 0
    return json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n"


def _suffix(own: str, run: str) -> str:
    """A name for the model in the provider's alphabet."""
    return re.sub(r"[^a-zA-Z0-9-]", "-", f"{own}-{run}" if own else run)[:LONGEST_SUFFIX]


def _losses_of_table(content: bytes) -> dict[int, float]:
    """Loss by step from a result file: CSV, as it is or in base64. Nothing from a file that is neither."""
    try:
        plain = content if b"," in content.partition(b"\n")[0] else base64.b64decode(content, validate=True)
        table = csv.DictReader(io.StringIO(plain.decode()))
        return {int(row["step"]): float(row["train_loss"]) for row in table if row["train_loss"]}
    except (ValueError, KeyError):
        return {}


def _lost(work: _Work, remote: "FineTuningJob") -> ProviderError:
    """What a person is told of a job that failed or was cancelled."""
    where = f"{work.name}, job {remote.id}"
    if remote.status == "cancelled":
        return ProviderError("the job was cancelled", where=where, remedy=f"Run again to start a new one. {KEPT}")
    code, said = (remote.error.code, remote.error.message) if remote.error is not None else ("", "no reason given")
    if re.search(r"moderation|unsafe|usage polic", f"{code} {said}", re.IGNORECASE):
        what = f"OpenAI's moderation refused the training file: {short(said)}"
        return ProviderError(what, where=where, remedy=f"These rows cannot be finetuned on there. {KEPT}")
    return ProviderError(f"the job failed: {short(said)}", where=where, remedy=f"Run again to start a new one. {KEPT}")


@contextlib.contextmanager
def _in_words(base: str) -> Iterator[None]:
    """Turns the client's errors into ours, without keys, and without the traceback that might hold some."""
    try:
        yield
    except openai.AuthenticationError as error:
        raise ProviderError(f"OpenAI refuses the key: {_said(error)}", remedy=f"Check {KEY}.") from None
    except openai.APIStatusError as error:
        what = f"OpenAI says (HTTP {error.status_code}): {_said(error)}"
        raise ProviderError(what, where=base, remedy="What was started is found again by the next start.") from None
    except openai.OpenAIError as error:
        raise ProviderError(f"OpenAI cannot be asked: {_said(error)}", remedy="Check the network, run again.") from None


def _said(error: Any) -> str:
    body = error.body if isinstance(getattr(error, "body", None), dict) else {}
    return short(str(body.get("message") or error))
