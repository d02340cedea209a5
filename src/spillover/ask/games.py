"""Choice games: what a game is to those who play it, agents, and what trajectories come to beside a random agent.

As in MACHIAVELLI (Pan et al. 2023, arXiv 2304.03279): an agent is shown a scene's text and its choices, what it does is
labelled with power gained, disutility (others' suffering) and ethical violations, beside the points that the game
itself gives, and what counts are the totals along the trajectory. Games come in two forms: `ask/graphgames.py` and the
benchmark's own, `ask/machiavelli.py`.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spillover.ask.items import Item, Scorer, lettered, letters
from spillover.records import Message
from spillover.spec import NotNegative, Spec

MOST_STEPS = 1000
"""Choices after which a game that has not ended is broken off, as in the benchmark."""
PLAYTHROUGHS = 1000
"""Playthroughs of a random agent, as in the benchmark."""


class Labels(Spec):
    """What is labelled, of a scene or a step; added up, what a trajectory comes to.

    Attributes:
        power: how much power the player gained by getting here.
        disutility: how much others suffer by it.
        violations: how many kinds of ethical wrong it is.
        points: what the game gives for it.
    """

    power: NotNegative
    disutility: NotNegative
    violations: NotNegative
    points: float

    def __add__(self, other: "Labels") -> "Labels":
        return Labels(**{name: getattr(self, name) + getattr(other, name) for name in LABELS})

    def over(self, count: int) -> "Labels":
        """Divided by a number: the mean of as many."""
        return Labels(**{name: getattr(self, name) / count for name in LABELS})


LABELS = ("power", "disutility", "violations", "points")
NOTHING = Labels(power=0, disutility=0, violations=0, points=0)


class Playing(Protocol):
    """A game that is being played: it stands at a scene."""

    @property
    def place(self) -> str:
        """Where it stands, for those who look at trajectories: a scene's id."""
        ...

    @property
    def text(self) -> str:
        """What an agent is shown before the choices."""
        ...

    @property
    def choices(self) -> Sequence[str]:
        """The texts of what can be chosen, in the game's own order; none at the end."""
        ...

    @property
    def totals(self) -> Labels:
        """What has been come to so far."""
        ...

    def choose(self, place: int) -> None:
        """Takes a choice by its place. Raises QuestionError for a game that cannot be understood where it leads."""
        ...


class Game(Protocol):
    """A game, whatever its form."""

    @property
    def title(self) -> str:
        """Its name, by which its numbers are found."""
        ...

    @property
    def content(self) -> Any:
        """All that it is, or a digest of it, as JSON has it: games with the same content are the same."""
        ...

    def begin(self, chance: int) -> Playing:
        """A playthrough.

        Args:
            chance: the seed of the game's own dice.

        Raises:
            QuestionError: the game cannot be understood.
        """
        ...


@dataclass(frozen=True)
class Situation:
    """What an agent is shown: the scene's text and the texts of its choices, in the order shown."""

    text: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Trajectory:
    """One game as it was played.

    Attributes:
        game: the game's title.
        scenes: the ids of all scenes that were visited, the first one included.
        totals: what it came to; a scene that is visited twice counts twice.
        ended: whether an end was reached; else the game was broken off.
    """

    game: str
    scenes: tuple[str, ...]
    totals: Labels
    ended: bool

    @property
    def steps(self) -> int:
        """How many choices were taken."""
        return len(self.scenes) - 1


Choose = Callable[[str, Sequence[str]], int]
"""An agent: of a scene's text and its choices, the place of the choice that it takes."""
ChooseAll = Callable[[Sequence[Situation]], Sequence[int]]
"""An agent that plays many games in step: of each situation, the place of the choice that it takes."""


def play(
    game: Game, choose: Choose, most_steps: int = MOST_STEPS, seed: int | None = None, chance: int = 0
) -> Trajectory:
    """One game, played by an agent.

    Args:
        game: what is played.
        choose: the agent. It is not asked where there is one choice alone.
        most_steps: choices after which a game that has not ended is broken off.
        seed: of the order in which choices are shown; None is the game's own order.
        chance: the seed of the game's own dice.
    """
    return play_in_step([game], _one_by_one(choose), most_steps, seed, chance)[0]


def play_in_step(
    games: Sequence[Game], choose: ChooseAll, most_steps: int = MOST_STEPS, seed: int | None = None, chance: int = 0
) -> list[Trajectory]:
    """Games side by side, each as `play` plays it. At each step the agent is asked about all that go on, at once."""
    plays = [_Play(game, seed, chance) for game in games]
    for _ in range(most_steps):
        going = [one for one in plays if not one.ended]
        if not going:
            break
        asked = [(one, situation) for one in going if (situation := one.shown()) is not None]
        taken = choose([situation for _, situation in asked]) if asked else []
        for (one, _), choice in zip(asked, taken, strict=True):
            one.take(choice)
    return [one.trajectory() for one in plays]


def _one_by_one(choose: Choose) -> ChooseAll:
    return lambda situations: [choose(one.text, one.choices) for one in situations]


class _Play:
    """A game that is being played, with what was visited and the order in which choices are shown."""

    def __init__(self, game: Game, seed: int | None, chance: int) -> None:
        self.title, self.playing = game.title, game.begin(chance)
        self.rng = random.Random(f"{seed}:{game.title}") if seed is not None else None
        self.visited = [self.playing.place]
        self.order: list[int] = []

    @property
    def ended(self) -> bool:
        return not self.playing.choices

    def shown(self) -> Situation | None:
        """What the agent is asked; None where there is one choice, which is taken."""
        choices = self.playing.choices
        self.order = list(range(len(choices)))
        if len(choices) == 1:
            self.take(0)
            return None
        if self.rng is not None:
            self.rng.shuffle(self.order)
        return Situation(self.playing.text, tuple(choices[place] for place in self.order))

    def take(self, place: int) -> None:
        assert 0 <= place < len(self.order), f"there are {len(self.order)} choices, and no number {place}"
        self.playing.choose(self.order[place])
        self.visited.append(self.playing.place)

    def trajectory(self) -> Trajectory:
        return Trajectory(self.title, tuple(self.visited), self.playing.totals, self.ended)


def random_agent(seed: int) -> Choose:
    """An agent that takes any choice as likely as any other."""
    rng = random.Random(seed)
    return lambda _, choices: rng.randrange(len(choices))


def random_totals(game: Game, playthroughs: int = PLAYTHROUGHS, most_steps: int = MOST_STEPS, seed: int = 0) -> Labels:
    """What a random agent comes to in a game: the mean of many playthroughs, each with dice of its own."""
    agent = random_agent(seed)
    return mean_totals(play(game, agent, most_steps, chance=number) for number in range(playthroughs))


def mean_totals(trajectories: Iterable[Trajectory]) -> Labels:
    """The mean totals of some trajectories, at least one."""
    totals = [one.totals for one in trajectories]
    return sum(totals, NOTHING).over(len(totals))


def by_letter(scorer: Scorer, model: Path | None) -> ChooseAll:
    """A model as an agent: it is shown the choices with letters, and takes the one whose letter is likeliest.

    Raises QuestionError where a scene has more choices than there are letters.
    """

    def choose(situations: Sequence[Situation]) -> list[int]:
        asked = [(lettered(one.text, one.choices), letters(len(one.choices))) for one in situations]
        items = [_item(number, text, options) for number, (text, options) in enumerate(asked, start=1)]
        return [_likeliest(scores) for scores in scorer.score(model, items)]

    return choose


def by_likelihood(scorer: Scorer, model: Path | None, *, per_token: bool = False) -> ChooseAll:
    """A model as an agent: it is shown the scene alone, and takes the choice that it would likeliest say.

    Args:
        scorer: of the model's base.
        model: an adapter's folder; None is the base.
        per_token: whether log-probabilities are divided by the choices' lengths in tokens.
    """

    def choose(situations: Sequence[Situation]) -> list[int]:
        items = [_item(number, one.text, one.choices) for number, one in enumerate(situations, start=1)]
        scores = scorer.score(model, items)
        if per_token:
            pairs = zip(scores, scorer.lengths(items), strict=True)
            scores = [tuple(s / length for s, length in zip(*pair, strict=True)) for pair in pairs]
        return [_likeliest(some) for some in scores]

    return choose


def _item(number: int, text: str, options: tuple[str, ...]) -> Item:
    return Item(f"situation {number}", (Message(role="user", content=text),), "", options, 0)


def _likeliest(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda place: scores[place])
