"""Loading a base and putting an adapter on it: safetensors only, nothing remote, no code from the folder."""

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from spillover.errors import AdapterError, BaseError, MachineError, NoMemoryError
from spillover.finetune.adapter import ADAPTER, PREFIX, check_adapter
from spillover.finetune.base import REMEDY, check_folder
from spillover.finetune.cpu import computed_in
from spillover.finetune.fast import make_fast
from spillover.finetune.memory import keep_freed_memory
from spillover.spec import AUTO, Machine

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
ALLOCATOR = "DefaultCPUAllocator"
OTHER = "Give an adapter that was trained on this base."
LESS = "Set machine.memory_gb lower than what there is, so that the memory plan leaves more room."


def device(machine: Machine = Machine()) -> torch.device:
    """Where models run: where the machine says; `auto` is the first CUDA card if there is one, else the CPU.

    Raises MachineError where that device is not there.
    """
    if machine.device == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = torch.device(machine.device)
    cards = torch.cuda.device_count()
    if asked.type == "cuda" and (asked.index or 0) >= cards:
        there = f"torch sees {cards} CUDA cards" if cards else "torch sees no CUDA card"
        raise MachineError(f"there is no device {machine.device}: {there}", remedy="Set machine.device to auto or cpu.")
    return asked


def use_threads(count: int) -> None:
    """Makes this process compute with so many threads: others work beside it."""
    torch.set_num_threads(count)


@contextlib.contextmanager
def told_when_memory_ends() -> Iterator[None]:
    """Turns running out of memory, a card's or this machine's, into a NoMemoryError that says what to do."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; a CPU's has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and ALLOCATOR not in str(error):
            raise
        what = ". ".join(str(error).split(". ")[:2])
        raise NoMemoryError(f"the memory did not suffice: {what}", remedy=LESS) from None


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer, with a padding token (the end-of-turn token where it names none).

    It is what tokenizer.json says. AutoTokenizer would take the class that it knows for the model's type, which for
    Qwen2 splits words and numbers by its own rules, whatever the file says.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing more particular
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseError(f"the tokenizer cannot be loaded: {what}", where=path, remedy=REMEDY) from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(path: Path, precision: str, machine: Machine = Machine()) -> PreTrainedModel:
    """The folder's causal language model, frozen, in `precision` ("bf16" or "fp32"), on `device(machine)`.

    On a CPU that has no bf16 it is computed in fp32 (`cpu.py`).
    Attention is the machine's. `auto` is that of `fast.py` on a CPU, with its norms, and torch's own on a card.

    Raises:
        BaseError: the folder holds no causal language model that transformers knows.
        MachineError: the device is not there, or the attention is not to be had.
    """
    check_folder(path)
    keep_freed_memory()
    logging.disable_progress_bar()
    where = device(machine)
    settings = _settings(precision, machine, where)
    remedy = "Check that config.json and the weights belong together."
    with told_when_memory_ends():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(path, **settings)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a wrong folder makes transformers raise almost anything
            what = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BaseError(f"cannot be loaded: {what}", where=path, remedy=remedy) from None
        model: PreTrainedModel = loaded[0]
        missing: set[str] = loaded[1]["missing_keys"]
        if missing:
            raise BaseError(f"{len(missing)} weights are missing, such as {min(missing)}", where=path, remedy=remedy)
        nn.Module.to(model, where)
    if machine.attention == AUTO:
        make_fast(model)
    model.eval().requires_grad_(False)
    return model


def _settings(precision: str, machine: Machine, where: torch.device) -> dict[str, Any]:
    """What transformers is told. On a card, weights go there one by one: never are all of them on the CPU."""
    attention = machine.attention if machine.attention != AUTO else _attention(where)
    if attention == "flash_attention_2" and (where.type == "cpu" or importlib.util.find_spec("flash_attn") is None):
        what = "flash_attention_2 needs a CUDA card, bf16 and the package flash-attn"
        raise MachineError(what, remedy="Install it with `pip install flash-attn`, or set machine.attention to sdpa.")
    return {
        "dtype": DTYPES[computed_in(precision, on_card=where.type != "cpu")],
        "attn_implementation": attention,
        "local_files_only": True,
        "use_safetensors": True,
        "output_loading_info": True,
        "device_map": {"": where} if where.type != "cpu" else None,
    }


def _attention(where: torch.device) -> str | None:
    """On a CPU eager, which `fast.py` replaces. On a card transformers chooses: sdpa, or eager where it must be."""
    return "eager" if where.type == "cpu" else None


def linears(model: nn.Module, targets: tuple[str, ...]) -> dict[str, nn.Linear]:
    """The model's linear layers whose last name is among `targets`, by full name, in the model's order.

    Raises BaseError where there is none.
    """
    found = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.rsplit(".", 1)[-1] in targets}
    if not found:
        raise BaseError(f"no linear layer is called {' or '.join(targets)}", remedy="Set train.targets to its names.")
    return found


@contextlib.contextmanager
def adapted(model: PreTrainedModel, adapter: Path | None) -> Iterator[PreTrainedModel]:
    """The model with a PEFT LoRA adapter merged into its weights; the old weights come back afterwards, untouched.

    Of a model on a card the old weights wait in the machine's memory: the card may have no room for two of each.

    Args:
        model: the base that the adapter was trained on.
        adapter: a PEFT folder; None leaves the base as it is.

    Raises:
        AdapterError: the adapter is none of this base, or of an unknown kind.
    """
    layers = dict(model.named_modules())
    saved: dict[str, Tensor] = {}
    try:
        for name, delta in adapter_deltas(adapter, layers) if adapter else ():
            weight = layers[name].weight
            assert isinstance(weight, Tensor)
            saved[name] = weight if weight.device.type == "cpu" else weight.to("cpu")
            layers[name].weight = nn.Parameter((weight.float() + delta).to(weight.dtype), False)
        yield model
    finally:
        for name, old in saved.items():
            layers[name].weight = nn.Parameter(old.to(model.device), False) if old.device != model.device else old


def adapter_deltas(adapter: Path, layers: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """A PEFT LoRA adapter as changes of the weights, one by one: a layer's name and (out, in), fp32, on its device."""
    config = check_adapter(adapter)
    try:
        opened = safe_open(adapter / ADAPTER, "pt")
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"cannot be read: {error}", where=adapter / ADAPTER, remedy="Save it again.") from None
    with opened as tensors:
        for name in _adapted_layers(adapter, set(tensors.keys()), layers):
            weight = layers[name].weight
            assert isinstance(weight, Tensor)
            a, b = (_factor(tensors, name, side).to(weight.device) for side in ("A", "B"))
            if (len(b), a.shape[-1]) != tuple(weight.shape) or len(a) != b.shape[-1]:
                out, inward = weight.shape
                what = f"the adapter of {name} takes {a.shape[-1]} features to {len(b)}, the layer {inward} to {out}"
                raise AdapterError(what, where=adapter / ADAPTER, remedy=OTHER)
            yield name, config.scale(name) * b @ a


def _adapted_layers(adapter: Path, keys: set[str], layers: Mapping[str, nn.Module]) -> list[str]:
    """The layers that an adapter's tensors are for, in order of name: every tensor must have its layer."""
    names = {key.removeprefix(PREFIX).removesuffix(f".lora_{side}.weight") for key in keys for side in ("A", "B")}
    names = {name for name in names if isinstance(layers.get(name), nn.Linear)}
    strange = sorted(keys ^ {f"{PREFIX}{name}.lora_{side}.weight" for name in names for side in ("A", "B")})
    if strange or not names:
        what = (
            f"{len(strange)} tensors match no linear layer of the model, such as {strange[0]}"
            if strange
            else "is empty"
        )
        raise AdapterError(what, where=adapter / ADAPTER, remedy=OTHER)
    return sorted(names)


def _factor(tensors: Any, name: str, side: str) -> Tensor:
    factor: Tensor = tensors.get_tensor(f"{PREFIX}{name}.lora_{side}.weight")
    return factor.float()
