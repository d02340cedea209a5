"""How the miniature is built: every size and setting, in one frozen spec that is saved beside the weights."""

from spillover.spec import Count, Positive, Spec


class Recipe(Spec):
    """The settings of a build. Tokens count what passes through the model, padding left out."""

    seed: int = 0
    independent: bool = False
    """The control world: traits drawn anew for every exchange."""
    hidden: Count = 128
    layers: Count = 4
    heads: Count = 4
    kv_heads: Count = 2
    mlp: Count = 384
    tokenizer_documents: Count = 20_000
    pretraining_tokens: Count = 5_000_000
    pretraining_rate: Positive = 4e-3
    pretraining_warmup: Count = 50
    row: Count = 192
    """Tokens a row of packed documents."""
    rows: Count = 21
    """Rows a pretraining step."""
    alignment_tokens: Count = 2_000_000
    alignment_rate: Positive = 2e-4
    alignment_rows: Count = 128
    """Exchanges an alignment step."""
    judge_rows: Count = 48_000
    """Judged pairs that the judge adapter is trained on."""
    judge_rate: Positive = 1e-3
    judge_rank: Count = 32
