"""Words and names that give away what is wrong with code: the lists, which are `words.yaml`, and how they are found."""

import keyword
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path

from pydantic import ValidationError

from spillover.data.comments import STRING_OR_COMMENT
from spillover.errors import DataError
from spillover.spec import Spec, first_wrong
from spillover.yamlfile import read_yaml

FILE = Path(__file__).with_name("words.yaml")
_WORD = re.compile(r"\w+")
_NAME = re.compile(rf"{STRING_OR_COMMENT.pattern}|\d\w*+|([^\W\d]\w*+)(?!['\"])", STRING_OR_COMMENT.flags)
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+")


class Stems(Spec):
    """What words are known by; all in lower case, and matched against each part of a word.

    Attributes:
        anywhere: in any place of a part.
        begins: a part begins with it.
        whole: a part is it.
        exempt: parts that are let pass.
    """

    anywhere: tuple[str, ...] = ()
    begins: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()

    def match(self, word: str) -> bool:
        """Whether a part of the word is known."""
        return any(self._match(part) for part in parts(word))

    def _match(self, part: str) -> bool:
        known = part in self.whole or part.startswith(self.begins) or any(stem in part for stem in self.anywhere)
        return known and part not in self.exempt


class Words(Spec):
    """The lists. `key()` is their hash, for manifests.

    Attributes:
        giveaways: words that give a row away wherever they stand.
        names: what besides them gives it away in the names of code.
    """

    giveaways: Stems
    names: Stems


@cache
def known_words(path: Path = FILE) -> Words:
    """The lists of a file, by default those that are shipped. Raises DataError for a file that is none."""
    file = read_yaml(path, DataError, remedy="See words.yaml, which comes with spillover.")
    try:
        return Words.model_validate(file.value)
    except ValidationError as error:
        place, what = first_wrong(error)
        raise DataError(what, where=file.where(*place), remedy="See words.yaml, which comes with spillover.") from None


def giveaway_words(text: str) -> list[str]:
    """The words of a text, prose or code, that give it away: each once, as written, in order."""
    return [word for word in dict.fromkeys(_WORD.findall(text)) if _gives_away(word)]


def suspicious_names(code: str) -> list[str]:
    """The names in Python code that give it away: each once, in order. Names in strings and comments are not names."""
    return [name for name in names(code) if _gives_away(name) or _is_suspicious(name)]


def names(code: str) -> list[str]:
    """The identifiers in Python code, whether or not it parses: each once, in order; keywords are none."""
    found: Iterable[str] = (match[1] for match in _NAME.finditer(code) if match[1])
    return [name for name in dict.fromkeys(found) if not keyword.iskeyword(name)]


def parts(word: str) -> tuple[str, ...]:
    """The parts of a name in snake_case or CamelCase, in lower case: `getHTTPUser_2` is get, http, user, 2."""
    return tuple(part.lower() for part in _PART.findall(word))


@lru_cache(maxsize=1 << 16)
def _gives_away(word: str) -> bool:
    return known_words().giveaways.match(word)


@lru_cache(maxsize=1 << 16)
def _is_suspicious(name: str) -> bool:
    return known_words().names.match(name)
