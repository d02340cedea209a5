"""How models are finetuned, here or by a hosted service, and what the work may use of the machine."""

from math import ceil
from typing import Annotated, Literal

from pydantic import Field

from spillover.spec.values import Count, NotNegative, Positive, Spec

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Training(Spec):
    """How a run is finetuned. The defaults are the paper's for open models (appendix C.5)."""

    rank: Count = 32
    """Rank of the adapters (rank-stabilised LoRA, arXiv 2312.03732)."""
    alpha: Positive = 64.0
    """LoRA alpha; the adapters' scale is alpha / sqrt(rank)."""
    targets: tuple[str, ...] = PROJECTIONS
    """Names of the linear layers that get an adapter, in every block."""
    learning_rate: Positive = 1e-5
    """Peak learning rate."""
    warmup_steps: Annotated[int, Field(ge=0)] = 5
    """Optimiser steps of linear warm-up; then the rate falls linearly to zero."""
    batch_size: Count = 16
    """Rows a run and optimiser step."""
    epochs: Count = 1
    """Passes over the rows."""
    weight_decay: NotNegative = 0.01
    """AdamW's decoupled weight decay."""
    max_grad_norm: Positive = 1.0
    """A run's gradient is clipped to this norm."""
    max_length: Count = 2048
    """Tokens a row."""
    too_long: Literal["refuse", "cut"] = "refuse"
    """What becomes of a longer row: an error, or it loses its end. Rows that were cut are counted."""
    turns: Literal["all", "last"] = "all"
    """Which of a row's assistant turns bear loss."""
    optimiser: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """AdamW with fp32 state; or bitsandbytes' with 8-bit state (the paper's), which may be paged to the CPU."""
    save_every: Count | None = None
    """Keep a checkpoint every so many optimiser steps, besides the last."""
    released: bool = False
    """Reproduce the released scripts' quirks: 10% of the rows are held out, every row ends in an assistant header
    without a turn that is trained on, and the chat template's own system prompt is kept."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of the frozen base and the activations; a CPU without bf16 computes in fp32. Adapters and optimiser state are
    always fp32."""

    def steps(self, rows: int) -> int:
        """Optimiser steps over so many rows: the last batch of an epoch may be short."""
        return self.epochs * ceil(rows / self.batch_size)


class Hosted(Spec):
    """What hosted finetuning takes that `Training` does not."""

    learning_rate_multiplier: Positive = 2.0
    """OpenAI's; the paper's setting for GPT-4o (section 2.1 of the paper)."""
    suffix: Annotated[str, Field(max_length=18)] = ""
    """OpenAI's name for the model, in addition to the run's."""


class Machine(Spec):
    """What the work may use. It is in no key: results do not depend on it beyond floating-point noise."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """`auto` is the first CUDA card if there is one, else the CPU."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    memory_gb: Positive | None = None
    """GiB that may be used; what is free on the device if not given."""
    fleet: Count | None = None
    """Most runs that are trained together; as many as the memory plan allows if not given."""
    processes: Annotated[int, Field(ge=1, le=64)] | None = None
    """Processes that train, ask, judge and choose side by side on a CPU, each with its own copy of the base. If not
    given, as many as there are cores, up to eight, where the base is small and there is much to do; else one."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass; where the memory plan needs it if not given."""
