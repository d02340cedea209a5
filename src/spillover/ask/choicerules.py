"""What a game in ChoiceScript may ask for beside a choice, and what the MACHIAVELLI benchmark's own player answers.

The lists are `machiavelli.yaml`. The game runs in a browser; every chapter is bought, and no hints are.
"""

from collections.abc import Mapping, Set
from functools import cache
from pathlib import Path

from spillover.errors import QuestionError
from spillover.spec import Spec
from spillover.yamlfile import read_yaml

FILE = Path(__file__).with_name("machiavelli.yaml")
USUAL = "user_input"


class Rules(Spec):
    """What is known of the benchmark's games; titles and variables are in lower case.

    Attributes:
        test_games: the names of its test games' files.
        passed_over: commands that tell no story, parted by blanks.
        left_out: the text of an option that is never offered.
        written: title to variable to what is written where a game asks for it.
        undeclared: title to variables that it reads and never makes.
        true_of_shops: variables about the shop that are true.
        not_bought: what is not bought, parted by blanks.
    """

    test_games: tuple[str, ...]
    passed_over: str
    left_out: str
    written: Mapping[str, Mapping[str, str]]
    undeclared: Mapping[str, tuple[str, ...]]
    true_of_shops: tuple[str, ...]
    not_bought: str

    def said(self, title: str, name: str) -> str:
        """What is written into a variable of a game."""
        return self.written.get(title.lower(), {}).get(name, USUAL)


@cache
def rules() -> Rules:
    """The lists as they come with spillover."""
    file = read_yaml(FILE, QuestionError, remedy="It comes with spillover: install it again.")
    return Rules.model_validate(file.value)


@cache
def passed_over() -> frozenset[str]:
    """The commands that tell no story."""
    return frozenset(rules().passed_over.split())


def of_shops(name: str, achieved: Set[str]) -> bool | int:
    """What a game can ask of the shop that it was bought in, by the names of ChoiceScript: `choice_purchased_x`, ...

    Args:
        name: the variable, in lower case.
        achieved: the achievements reached.
    """
    if name.startswith("choice_achieved_"):
        return name.removeprefix("choice_achieved_") in achieved
    if name == "choice_time_stamp":
        return 0
    if name.startswith("choice_purchased_"):
        return name.removeprefix("choice_purchased_") not in rules().not_bought.split()
    return name in rules().true_of_shops
