"""AdamW with its state in fp32, or in 8 bits by bitsandbytes."""

import logging
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from spillover.errors import MachineError
from spillover.lazy import lazy
from spillover.spec import Training

bitsandbytes = lazy("bitsandbytes")
# PEFT loads it too, where it is installed, and it warns of kernels that nobody asked for.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def make_optimiser(weights: Sequence[nn.Parameter], spec: Training) -> torch.optim.Optimizer:
    """An optimiser with one group a run, whose weights are one vector.

    Raises MachineError where bitsandbytes is wanted and cannot be loaded.
    """
    groups = [{"params": [weight]} for weight in weights]
    if spec.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
    # On a CPU there is nowhere to page to: state lies there already.
    paged = spec.optimiser == "paged_adamw_8bit" and weights[0].is_cuda
    return _eight_bit(paged)(groups, lr=spec.learning_rate, weight_decay=spec.weight_decay)


def _eight_bit(paged: bool) -> Callable[..., torch.optim.Optimizer]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind: Callable[..., torch.optim.Optimizer] = getattr(
                bitsandbytes.optim, "PagedAdamW8bit" if paged else "AdamW8bit"
            )
    except (ImportError, OSError, RuntimeError) as error:
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = "Install it with `pip install 'spillover[8bit]'`, or set train.optimiser to adamw."
        raise MachineError(f"the 8-bit optimiser needs bitsandbytes: {what}", remedy=remedy) from None
    return kind
