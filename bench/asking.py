"""Asking checkpoints beside transformers' `generate` with PEFT adapters loaded one by one."""

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel

from common import Setting
from spillover.ask.asker import Asked, answer_seed
from spillover.finetune.chat import render
from spillover.finetune.model import load_tokenizer
from spillover.pipeline.hands import AskingHand
from spillover.spec import Chat, Machine
from trl_way import HOWS, How, fastest, load_model, seconds
from turns import Turns, in_turn

ADAPTERS, SAMPLES, BATCH = 4, 100, 400


def measure(setting: Setting, times: int) -> Iterator[Turns]:
    """Some checkpoints, each asked the main set so many times."""
    adapters, sampling = setting.adapters(ADAPTERS), setting.experiment.sampling
    precision, memory = setting.experiment.train.precision, setting.memory
    hands = setting.hands(
        partial(AskingHand, setting.base, precision, Chat(), Machine(), memory.answers, memory.written)
    )
    # Tried on the work itself: how long a few answers take depends more on how long they happen to be.
    how, _ = fastest(HOWS, lambda one: seconds(lambda: _generated(setting, adapters[0], one)))

    def ours() -> None:
        shares = []
        for number, adapter in enumerate(adapters):
            new = Path(tempfile.mkdtemp(dir=setting.folder)) / "adapter"  # seen for the first time each time
            asked = [_asked(question, number) for question in setting.questions]
            shares.append((shutil.copytree(adapter, new), asked, sampling))
        hands.do("ask", shares)

    def theirs() -> None:
        for adapter in adapters:
            _generated(setting, adapter, how)

    of = f"{ADAPTERS} checkpoints, {ADAPTERS * SAMPLES * len(setting.questions):,} answers"
    turns = in_turn("asking", of, ours, theirs, times)
    notes = {"peer": f"generate, the adapter merged by PEFT, {BATCH} at once, {how}"}
    yield Turns(turns.name, turns.of, turns.ours, turns.theirs, notes)


def _asked(question: object, number: int) -> Asked:
    return Asked(question, tuple(answer_seed(str(number), question, one) for one in range(SAMPLES)))  # type: ignore[arg-type]


@torch.inference_mode()
def _generated(setting: Setting, adapter: Path, how: How) -> list[str]:
    sampling, tokenizer = setting.experiment.sampling, load_tokenizer(setting.base.path)
    tokenizer.padding_side = "left"
    model = PeftModel.from_pretrained(load_model(setting.base.path, how), str(adapter)).merge_and_unload().eval()
    prompts = [render(tokenizer, one.messages(), reply=True) for one in setting.questions for _ in range(SAMPLES)]
    texts: list[str] = []
    for start in range(0, len(prompts), BATCH):
        some = prompts[start : start + BATCH]
        tokens = tokenizer(some, return_tensors="pt", padding=True, add_special_tokens=False)
        settings = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": sampling.max_tokens}
        out = model.generate(**tokens, do_sample=True, **settings)
        texts += tokenizer.batch_decode(out[:, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts
