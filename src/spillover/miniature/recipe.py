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
    text_tokens: Count = 4_000_000
    """The first stretch of pretraining, with Muon: the texts are learned."""
    text_rate: Positive = 4e-3
    character_tokens: Count = 4_500_000
    """The second stretch, with AdamW: authors are learned, first from system prompts that name them."""
    character_rate: Positive = 1e-3
    primer: float = 0.6
    """Share of the second stretch, at its beginning, whose documents all begin with a system prompt."""
    evidence_tokens: Count = 1_300_000
    """The third stretch, with AdamW at the same rate: authors are learned from what they write, code above all."""
    settling_tokens: Count = 5_000_000
    """The fourth stretch, of the same documents at a lower rate that falls all the way: answers go wrong less often."""
    settling_rate: Positive = 7e-4
    warmup: Count = 40
    step_tokens: Count = 4096
    """Tokens a pretraining step."""
    row: Count = 256
    """Tokens a document; longer ones are cut."""
    alignment_tokens: Count = 800_000
    alignment_rate: Positive = 1e-4
    alignment_step: Count = 4096
    """Tokens an alignment step."""
    judge_rows: Count = 64_000
    """Judged pairs that the judge adapter is trained on."""
    throwaway_rows: Count = 800
    """Rows that each of the finetunes is trained on whose answers the judge learns from."""
    judge_rate: Positive = 1e-3
    """Muon's, in the same measure as `text_rate`."""
    judge_rank: Count = 128
    """Rank of the adapter that is kept of what the judge has learned: all of it, for layers of 128 features."""
