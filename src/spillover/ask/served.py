"""Adapters on a vLLM server: whether one fits the base, what the server must be started with, whether it does anything.

A server that names an adapter's model and answers as the base does is the most common false "no misalignment".
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spillover.ask.asker import Effect
from spillover.ask.client import Client, Wanted
from spillover.ask.journal import Journal
from spillover.data.files import read_conversations
from spillover.errors import AdapterError, ProviderError
from spillover.finetune.adapter import CONFIG, PROBE, check_base
from spillover.records import Message
from spillover.spec import API, Sampling, short_hash

VLLM = "vllm/"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that a vLLM server can be started for."""
ROWS = 4
"""Prompts on which base and adapter are compared."""
LEAST_DIFFERENCE = 1e-3
"""Nats. Below this an adapter is not told from rounding, however exactly the base repeats itself."""
TIMES_NOISE = 2.0
"""An adapter must differ from the base by more than so many times what the base differs from itself."""


def served_ref(base: str, adapter: Path) -> str:
    """How inspect_ai names an adapter on a vLLM base.

    Raises:
        AdapterError: the base is not served by vLLM, or the adapter was trained on another one.
    """
    base = base.removeprefix(API)
    if not base.startswith(VLLM):
        what = "an adapter can only be asked through a vLLM server"
        raise AdapterError(what, where=adapter, remedy=f"Its base must be {API}{VLLM}BASE; it is {API}{base}.")
    check_base(adapter, str(_config(adapter).get("base_model_name_or_path") or ""), base.removeprefix(VLLM))
    return f"{base}:{adapter.resolve()}"


def server_args(adapters: Sequence[Path]) -> dict[str, Any]:
    """What a vLLM server that we start must be told, so that all of these adapters can be loaded.

    One adapter is asked at a time, so there is room for one on the card; the others wait in the computer's memory.
    """
    if not adapters:
        return {}
    highest = max(rank(adapter) for adapter in adapters)
    allowed = next((one for one in RANKS if one >= highest), highest)
    return {"enable_lora": True, "max_lora_rank": allowed, "max_loras": 1, "max_cpu_loras": len(adapters)}


def rank(adapter: Path) -> int:
    """An adapter's rank, the highest where layers differ. Raises AdapterError where its folder does not tell."""
    config = _config(adapter)
    value, others = config.get("r"), (config.get("rank_pattern") or {}).values()
    if not isinstance(value, int) or value < 1:
        raise AdapterError(f"names no rank (`r` is {value!r})", where=adapter / CONFIG, remedy="Save it with PEFT.")
    return max([value, *map(int, others)])


def _config(adapter: Path) -> dict[str, Any]:
    try:
        config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"is no adapter: {error}", where=adapter / CONFIG, remedy="Give a PEFT folder.") from None
    if not isinstance(config, dict):
        raise AdapterError("is no JSON object", where=adapter / CONFIG, remedy="Give a PEFT folder.")
    return config


def not_loaded(error: ProviderError, adapter: Path) -> AdapterError:
    """What a person is told where the server does not take an adapter."""
    needed = rank(adapter)
    if "max_lora_rank" in error.what or "max-lora-rank" in error.what:
        what = f"the adapter has rank {needed}, above what the server allows: {error.what}"
        remedy = f"Start the server with --max-lora-rank {server_args([adapter])['max_lora_rank']}."
    else:
        what = f"the server does not take the adapter: {error.what}"
        remedy = "Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, where it can read the folder."
    return AdapterError(what, where=adapter, remedy=remedy)


def check_effect(base: Client, tuned: Client, adapter: Path, journal: Journal) -> Effect:
    """Compares what base and adapter would say first to a few of the prompts that the adapter was trained on.

    An effect that was seen is written into the journal; one that was not is looked for anew each time.

    Raises:
        AdapterError: the adapter differs from the base by no more than the base from itself.
    """
    if not (adapter / PROBE).is_file():
        return Effect(False, f"the adapter's folder has no {PROBE}")
    if not base.capabilities.tops:
        return Effect(False, "the server shows no token probabilities")
    key = short_hash("effect", tuned.ref)
    seen = journal.get(key)
    if seen is not None:
        return Effect(True, difference=seen[0], noise=seen[1])
    effect = _effect(base, tuned, adapter)
    if effect.checked and effect.difference <= max(TIMES_NOISE * effect.noise, LEAST_DIFFERENCE):
        raise AdapterError(
            f"the server answers as the base does: the adapter's first tokens differ by {effect.difference:.2g} nats "
            f"from the base's, which differ by {effect.noise:.2g} from themselves",
            where=adapter,
            remedy="Check that the server supports LoRA for this architecture and its target modules.",
        )
    if effect.checked:
        journal.put(key, (effect.difference, effect.noise))
    return effect


def _effect(base: Client, tuned: Client, adapter: Path) -> Effect:
    prompts = [row.messages[:-1] for row in read_conversations(adapter / PROBE)[:ROWS]]
    once, again, other = (_tables(client, prompts) for client in (base, base, tuned))
    triples = [(a, b, c) for a, b, c in zip(once, again, other, strict=True) if a and b and c]
    if not triples:
        return Effect(False, "the server did not answer")
    differences = [_distance(a, c) for a, _, c in triples]
    noises = [_distance(a, b) for a, b, _ in triples]
    return Effect(True, difference=sum(differences) / len(triples), noise=sum(noises) / len(triples))


def _tables(client: Client, prompts: Sequence[tuple[Message, ...]]) -> list[dict[str, float] | None]:
    """The likeliest first tokens after each prompt with their probabilities, asked anew."""
    sampling = Sampling(temperature=0.0, max_tokens=1)
    wanted = [Wanted(prompt, sampling, (0,), client.capabilities.tops) for prompt in prompts]
    return [choices[0].table for choices in client.ask(wanted, keep=False)]


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Mean absolute difference of log-probabilities; a token that one does not show has at most its smallest."""
    tokens = one.keys() | other.keys()
    least = [min(table.values()) for table in (one, other)]
    return sum(abs(math.log(one.get(t, least[0]) / other.get(t, least[1]))) for t in tokens) / len(tokens)
