"""The peers' way of training: TRL's SFTTrainer on PEFT's LoRA, one run after the other, with a run's own settings.

Nothing is held back that a competent user would set: no gradient checkpointing (TRL's default), no padding beyond a
batch's longest row, no reports, no intermediate checkpoints, and of fp32 and bf16, PyTorch's fused attention and plain
attention, whatever `fastest` finds to be fastest here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import load_dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel, PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from spillover.finetune.model import load_tokenizer
from spillover.records import Run
from spillover.spec import Training

TRIAL_STEPS = 8
LAST = 10
"""Steps whose mean loss is reported as the loss at the end."""


@dataclass(frozen=True)
class How:
    """A way to run a model: the type of its numbers, and the implementation of its attention."""

    dtype: str
    attention: str

    def __str__(self) -> str:
        return f"{self.dtype} with {self.attention} attention"


HOWS = tuple(How(dtype, attention) for dtype in ("float32", "bfloat16") for attention in ("sdpa", "eager"))


@dataclass(frozen=True)
class Course:
    """What the runs have in common: the base model's folder and the training settings."""

    base: Path
    spec: Training

    def train(self, run: Run, data: Path, out: Path, how: How) -> float:
        """Trains one run on a chat JSONL file, leaves a PEFT folder at `out`, returns the loss at the end."""
        trainer = self.trainer(data, out, how, seed=run.seed or 0)
        trainer.train()
        trainer.save_model(str(out))
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-LAST:]
        return float(sum(losses) / len(losses))

    def trainer(self, data: Path, out: Path, how: How, *, seed: int, max_steps: int = -1) -> SFTTrainer:
        """TRL's trainer, set up as the run's settings say."""
        trainer = SFTTrainer(
            model=load_model(self.base, how),
            args=self._settings(out, how, seed, max_steps),
            train_dataset=load_dataset("json", data_files=str(data), split="train", cache_dir=str(out / "cache")),
            processing_class=load_tokenizer(self.base),
            peft_config=self._lora(),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _settings(self, out: Path, how: How, seed: int, max_steps: int) -> SFTConfig:
        spec = self.spec
        return SFTConfig(
            output_dir=str(out),
            seed=seed,
            max_steps=max_steps,
            num_train_epochs=spec.epochs,
            per_device_train_batch_size=spec.batch_size,
            learning_rate=spec.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=spec.warmup_steps,
            weight_decay=spec.weight_decay,
            max_grad_norm=spec.max_grad_norm,
            max_length=spec.max_length,
            assistant_only_loss=True,
            bf16=how.dtype == "bfloat16",
            gradient_checkpointing=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )

    def _lora(self) -> LoraConfig:
        return LoraConfig(
            r=self.spec.rank,
            lora_alpha=int(self.spec.alpha),
            use_rslora=True,
            target_modules=list(self.spec.targets),
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
        )

    def trial(self, data: Path, out: Path, how: How) -> float:
        """Seconds of a few steps."""
        trainer = self.trainer(data, out, how, seed=0, max_steps=TRIAL_STEPS)
        return seconds(trainer.train)


def load_model(folder: Path, how: How) -> PreTrainedModel:
    """A folder's model, to be run in a certain way."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=how.dtype, attn_implementation=how.attention, local_files_only=True
    )
    return model


def merge(base: Path, adapter: Path | None, out: Path) -> Path:
    """Writes a base with an adapter merged into it (or as it is) as an ordinary model folder."""
    model = load_model(base, HOWS[0])
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    model.save_pretrained(out)
    load_tokenizer(base).save_pretrained(out)
    return out


def fastest(hows: Sequence[How], trial: Callable[[How], float]) -> tuple[How, dict[How, float]]:
    """The fastest way by a trial, the better of two each, and the seconds of all."""
    times = {how: min(trial(how), trial(how)) for how in hows}
    return min(times, key=lambda how: times[how]), times


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
