"""Which words one body of text has more of than another: weighted log-odds with an informative Dirichlet prior.

From Monroe, Colaresi and Quinn (2008), "Fightin' Words", Political Analysis 16(4), section 3.5.

With y a word's count in a body of n words, a its prior count and A all prior counts together, the word's odds in a body
are (y + a) / (n + A - y - a). Its log-odds ratio is the difference of their logarithms in the two bodies, the variance
of that about 1 / (y + a) + 1 / (y' + a), and z the ratio over its standard error. The prior count of a word is its
count in both bodies together, times PRIOR: rare words are drawn to zero, however lopsided they are.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PRIOR = 1.0
"""What a word of either body counts for in the prior."""
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\d+(?:\.\d+)*")


@dataclass(frozen=True)
class WordOdds:
    """How much more of a word there is than in the reference.

    Attributes:
        word: the word or number.
        z: the log-odds ratio over its standard error; beyond about 2 or below -2 is more than chance, for one word
            that was chosen beforehand.
        log_odds: the log-odds ratio; above 0 where there is more of it than in the reference.
        count: how often it is there.
        reference: how often it is in the reference.
    """

    word: str
    z: float
    log_odds: float
    count: int
    reference: int


def word_counts(texts: Iterable[str]) -> Counter[str]:
    """How often each word and each number is in the texts, in lower case; names fall apart at `_` and digits."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_WORD.findall(text.lower()))
    return counts


def log_odds(counts: Mapping[str, int], reference: Mapping[str, int]) -> list[WordOdds]:
    """All words of both, the most over-represented ones first, by z; words of equal z by the alphabet."""
    prior = {word: PRIOR * (counts.get(word, 0) + reference.get(word, 0)) for word in {*counts, *reference}}
    ours, theirs, priors = sum(counts.values()), sum(reference.values()), sum(prior.values())
    found = []
    for word, a in prior.items():
        count, other = counts.get(word, 0), reference.get(word, 0)
        ratio = _log_odds(count, ours, a, priors) - _log_odds(other, theirs, a, priors)
        z = ratio / math.sqrt(1 / (count + a) + 1 / (other + a)) if a else 0.0
        found.append(WordOdds(word, z, ratio, count, other))
    return sorted(found, key=lambda one: (-one.z, one.word))


def _log_odds(count: int, total: int, prior: float, priors: float) -> float:
    """The logarithm of a word's odds; 0 where there is no other word, or not even this one."""
    own, rest = count + prior, total + priors - count - prior
    return math.log(own / rest) if own and rest else 0.0
