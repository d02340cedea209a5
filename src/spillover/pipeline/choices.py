"""What an experiment's choices come to: items and games by name, of the miniature's world or from files."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from spillover.ask.games import Game
from spillover.ask.graphgames import read_games
from spillover.ask.itemfiles import ITEM_FILES, read_items
from spillover.ask.items import Item
from spillover.ask.machiavelli import is_published, read_published
from spillover.ask.worlditems import WORLD_ITEMS, world_games
from spillover.errors import QuestionError, SpecError
from spillover.finetune.base import Base
from spillover.spec import Choices, Experiment, short_hash

GAMES = "games"
LONG = ("answers", "truth", "code")
"""Sets of the world whose options are whole answers."""


@dataclass(frozen=True)
class ChoiceSet:
    """Items, or games, which are chosen in by the likelihood of what is chosen or by its letter.

    Attributes:
        name: as the experiment calls it.
        items: what is chosen among; empty for games.
        games: what is played.
        is_long: whether options are whole answers, of which a long one is not to be unlikely for its length alone.
        lettered: whether games are played by letters, which the miniature does not know.
        only: the groups that choose; all of them if empty.
    """

    name: str
    items: tuple[Item, ...] = ()
    games: tuple[Game, ...] = ()
    is_long: bool = False
    lettered: bool = False
    only: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """A short hash of all that is chosen among."""
        games = [game.content for game in self.games]
        return short_hash([asdict(item) for item in self.items], games, self.lettered)


@dataclass(frozen=True)
class Chosen:
    """What a model made of a set.

    Attributes:
        scores: of each item, each option's log-probability, in nats.
        lengths: and its tokens.
        totals: what it came to in each game, by label.
    """

    scores: tuple[tuple[float, ...], ...] = ()
    lengths: tuple[tuple[int, ...], ...] = ()
    totals: tuple[tuple[str, Mapping[str, float]], ...] = ()


def choice_sets(experiment: Experiment, base: Base, *, of_world: bool) -> tuple[list[ChoiceSet], dict[str, str]]:
    """The sets, and those that are left out, with the reason.

    Raises:
        QuestionError: a set that is missing and not optional, or a wrong file.
        SpecError: models that do not show the probabilities of given answers.
    """
    found: list[ChoiceSet] = []
    skipped: dict[str, str] = {}
    for name, choices in experiment.choices.items():
        try:
            found.append(_found(name, choices, experiment, base, of_world=of_world))
        except (QuestionError, SpecError) as error:
            if not choices.optional:
                raise
            skipped[name] = str(error)
    return found, skipped


def _found(name: str, choices: Choices, experiment: Experiment, base: Base, *, of_world: bool) -> ChoiceSet:
    if base.is_hosted or experiment.asker != "local":
        raise SpecError(
            "only models in this process show how likely given answers are",
            where=f"choices.{name}",
            remedy="Leave `choices` out, or use a local base.",
        )
    if choices.items in WORLD_ITEMS and of_world:
        games = tuple(world_games()) if choices.items == GAMES else ()
        items = () if games else tuple(WORLD_ITEMS[choices.items]())
        return ChoiceSet(name, items, games, choices.items in LONG, only=choices.groups)
    if choices.items in ITEM_FILES or Path(choices.items).is_file():
        items = tuple(read_items(ITEM_FILES.get(choices.items, Path(choices.items))))
        return ChoiceSet(name, items, only=choices.groups)
    if Path(choices.items).is_dir():
        return ChoiceSet(name, games=_games(Path(choices.items)), lettered=True, only=choices.groups)
    raise QuestionError(
        f"there are no items {choices.items!r} for this base",
        where=f"choices.{name}",
        remedy=f"For any base there are {', '.join(ITEM_FILES)}; in the miniature's world {', '.join(WORLD_ITEMS)}. Or "
        "give an item file, or a folder of games: the MACHIAVELLI benchmark's, or a JSON file each in the form of "
        "spillover.ask.graphgames.",
    )


def _games(folder: Path) -> tuple[Game, ...]:
    """The games of a folder, whichever form they have."""
    return tuple(read_published(folder) if is_published(folder) else read_games(folder))
