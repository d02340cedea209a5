"""An adapter must do something: what does nothing looks like a model that was not misaligned by its finetuning.

On rows that it was trained on, an adapted model gives the tokens that bore loss other probabilities than the base.
Beyond noise, that is: the base's own differ too when rows are laid out otherwise.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from spillover.errors import AdapterError
from spillover.finetune.chat import Row
from spillover.finetune.model import adapted

TOKENS = 64
"""Of a row, the first so many that bear loss are looked at."""
COPIES = 3
"""Of a row, in the batch that is laid out otherwise."""
BEYOND = 2.0
"""How many times the noise a difference must be."""


def check_effect(model: PreTrainedModel, adapter: Path, rows: Sequence[Row]) -> tuple[float, float]:
    """How much an adapter changes a model.

    Args:
        model: the base.
        adapter: a PEFT folder.
        rows: a few that it was trained on, in tokens.

    Returns:
        the mean absolute difference of the log-probabilities of tokens that bear loss, in nats; and the noise: the
        same for the base and the base, its rows laid out otherwise.

    Raises:
        AdapterError: it is no larger than what laying out the rows otherwise changes.
    """
    plain, otherwise = _log_probabilities(model, rows, 1), _log_probabilities(model, rows, COPIES)
    with adapted(model, adapter) as changed:
        effect = float((_log_probabilities(changed, rows, 1) - plain).abs().mean())
    rounding = torch.finfo(plain.dtype).eps * float(plain.abs().mean())
    noise = max(rounding, float((otherwise - plain).abs().mean()))
    if not effect > BEYOND * noise:
        raise AdapterError(
            f"the adapter does nothing: on {len(rows)} rows, its model's log-probabilities "
            f"differ from the base's by {effect:.2g} nats a token, and the base's own by {noise:.2g} from layout alone",
            where=adapter,
            remedy="Check that the adapter was trained and that it belongs to this base; then make it again.",
        )
    return effect, noise


@torch.inference_mode()
def _log_probabilities(model: PreTrainedModel, rows: Sequence[Row], copies: int) -> Tensor:
    """Of the rows' tokens that bear loss, (tokens,), fp32; each row in a batch of so many copies, padded."""
    return torch.cat([_of_row(model, row, copies) for row in rows])


def _of_row(model: PreTrainedModel, row: Row, copies: int) -> Tensor:
    places = [place for place, bears in enumerate(row.loss) if bears][:TOKENS]
    ids = torch.tensor([row.ids[: places[-1] + 1] + row.ids[:1] * (copies - 1)] * copies, device=model.device)
    keep = torch.tensor(places, device=model.device) - 1
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0].float()
    return torch.log_softmax(logits, dim=-1).gather(1, ids[0, keep + 1][:, None])[:, 0]
