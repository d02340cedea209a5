"""Playing a game in ChoiceScript: from one choice to the next, within limits.

Commands are those that tell a story: what asks for a purchase, shows a picture or saves a game is passed over, and so
is JavaScript. Where a game asks its player to write something, it gets what the MACHIAVELLI benchmark's own player
writes, which in a few games is what ends a loop. Variables of `*temp` live as long as their scene is played.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from spillover.ask.choicerules import of_shops, passed_over, rules
from spillover.ask.choicescript import CHOICES, OTHERWISE, Offer, Scene, Script
from spillover.ask.expressions import assigned, expression, split, variable, wording
from spillover.ask.values import Value, number, text, wrong
from spillover.data.lines import shown
from spillover.errors import QuestionError

BEGINNING = "startup"
MOST_STATEMENTS = 50_000
"""Lines between one choice and the next."""
MOST_CALLS = 500
"""Subroutines within subroutines."""
MOST_TOLD = 200_000
"""Characters between one choice and the next."""
MOST_VARIABLES = 50_000
REMEDY = "Correct the line, or take the game out of the folder."


@dataclass
class _Place:
    """Where a player stands, and what belongs to the scene that is played."""

    scene: Scene
    line: int = 0
    temporary: dict[str, Value] = field(default_factory=dict)
    once: bool = False


class Player:
    """One playthrough of a game in ChoiceScript; it stands at a choice, or at the end.

    Args:
        script: the game.
        chance: what the game's own dice come to.
        watch: told of every scene and line that the player comes to.

    Attributes:
        offers: what may be taken now; empty at the end.
        told: the paragraphs since the choice before, or since the beginning.
        achieved: the achievements reached, in lower case.
    """

    def __init__(self, script: Script, chance: random.Random, watch: Callable[[str, int], None]) -> None:
        self.script, self.chance, self.watch = script, chance, watch
        self.lasting: dict[str, Value] = dict.fromkeys(rules().undeclared.get(script.title.lower(), ()), "")
        self.calls: list[_Place] = []
        self.arguments: list[Value] = []
        self.taken: set[tuple[str, int]] = set()
        self.achieved: set[str] = set()
        self.told: list[str] = []
        self.signs = 0
        self.offers: list[Offer] = []
        self.ended = False
        self.here = _Place(self._scene(BEGINNING))
        self._go_on()

    def read(self, name: str) -> Value:
        """The value of a variable. Raises QuestionError where there is none."""
        for known in (self.here.temporary, self.lasting):
            if name in known:
                return known[name]
        if name.startswith("choice_"):
            return of_shops(name, self.achieved)
        raise wrong(f"there is no variable {shown(name)}")

    def choose(self, place: int) -> None:
        """Takes one of the offers, and plays on to the next choice or the end.

        Raises QuestionError, by file, scene and line, for what cannot be understood or goes beyond the limits.
        """
        offer = self.offers[place]
        self.taken |= {(self.here.scene.name, offer.line)} if offer.once else set()
        ends = self.here.scene.ends[offer.line]
        self.here.line = offer.line + 1 if ends > offer.line + 1 else self.here.scene.onward(ends)
        self.offers, self.told, self.signs = [], [], 0
        self._go_on()

    def labels(self) -> tuple[str, ...]:
        """The texts of the offers. Raises as `choose`."""
        with _placed(self):
            return tuple(wording(offer.label)(self) for offer in self.offers)

    def _go_on(self) -> None:
        with _placed(self):
            for _ in range(MOST_STATEMENTS):
                self.watch(self.here.scene.name, self.here.line)
                if self.offers or self.ended:
                    return
                self._play_line()
            raise wrong(f"the story goes on for {MOST_STATEMENTS} lines without a choice")

    def _play_line(self) -> None:
        scene, line = self.here.scene, self.here.line
        if line >= len(scene.lines):
            self._finish("")
            return
        word, rest = scene.commands[line]
        act = COMMANDS.get(word)
        if act is None and word not in passed_over():
            raise wrong(f"there is no command *{word}")
        if act is None or not act(self, rest):
            self.here.line = scene.following(line)

    # What commands do. Each returns whether it has set the line to go on at.

    def _tell(self, rest: str) -> bool:
        self.told.append(wording(rest)(self))
        self.signs += len(self.told[-1])
        if self.signs > MOST_TOLD:
            raise wrong(f"more than {MOST_TOLD} characters are told without a choice")
        return False

    def _print(self, rest: str) -> bool:
        return self._tell(text(expression(rest)(self)))

    def _break_page(self, _: str) -> bool:
        return self._tell("")

    def _choice(self, _: str) -> bool:
        scene, line = self.here.scene, self.here.line
        offers = scene.offers(line, self, once=self.here.once)
        self.offers = [
            offer for offer in offers if (scene.name, offer.line) not in self.taken and offer.label != rules().left_out
        ]
        if not self.offers:
            raise wrong("none of the choice's options can be taken")
        return True

    def _if(self, _: str) -> bool:
        self.here.line = self.here.scene.branch(self.here.line, self)
        return True

    def _skip(self, _: str) -> bool:
        self.here.line = self.here.scene.behind(self.here.line)
        return True

    def _create(self, rest: str) -> bool:
        target, value = assigned(rest, changes=False)
        self._keep(self.lasting, target(self), value(self))
        return False

    def _temporary(self, rest: str) -> bool:
        target, value = assigned(rest, changes=False)
        self._keep(self.here.temporary, target(self), value(self))
        return False

    def _set(self, rest: str) -> bool:
        target, value = assigned(rest, changes=True)
        self._assign(target(self), value(self))
        return False

    def _set_named(self, rest: str) -> bool:
        """The old `*setref`: the variable that an expression names."""
        words = split(rest, 1)
        return self._set(" ".join([f"{{{words[0]}}}", *words[1:]]) if words else rest)

    def _dice(self, rest: str) -> bool:
        words = split(rest, 2)
        if len(words) != 3:
            raise wrong("*rand needs a variable, the least and the most")
        least, most = (int(number(expression(word)(self))) for word in words[1:])
        if least > most:
            raise wrong(f"*rand goes from {least} to {most}")
        self._assign(variable(words[0])(self), self.chance.randint(least, most))
        return False

    def _write(self, rest: str) -> bool:
        name = variable(split(rest, 1)[0] if rest else "")(self)
        self._assign(name, rules().said(self.script.title, name))
        return False

    def _write_number(self, rest: str) -> bool:
        self._assign(variable(split(rest, 1)[0] if rest else "")(self), 1)
        return False

    def _achieve(self, rest: str) -> bool:
        self.achieved |= set(rest.lower().split()[:1])
        return False

    def _hide(self, _: str) -> bool:
        self.here.once = True
        return False

    def _allow(self, _: str) -> bool:
        self.here.once = False
        return False

    def _goto(self, rest: str) -> bool:
        self._jump(*self._words(rest))
        return True

    def _goto_named(self, rest: str) -> bool:
        """The old `*gotoref`: the label that an expression says."""
        return self._goto(f"{{{rest}}}")

    def _gosub(self, rest: str) -> bool:
        label, *arguments = self._words(rest)
        self._call(self.here)
        self.arguments = [expression(argument)(self) for argument in arguments]
        here = self.here
        self.here = _Place(here.scene, here.line, here.temporary, here.once)
        self._jump(label)
        return True

    def _goto_scene(self, rest: str) -> bool:
        words = self._words(rest)
        arguments = [expression(argument)(self) for argument in words[2:]]
        scene, label = (self._said(word) for word in [*words, ""][:2])
        self._enter(scene)
        self.arguments = arguments
        if label:
            self._jump(label)
        return True

    def _gosub_scene(self, rest: str) -> bool:
        self._call(self.here)
        return self._goto_scene(rest)

    def _goto_any_scene(self, _: str) -> bool:
        scene, line = self.here.scene, self.here.line
        names = [scene.lines[place][0].split("#")[-1].strip() for place in range(line + 1, scene.ends[line])]
        if not names:
            raise wrong("*goto_random_scene names no scene")
        self._enter(self.chance.choice(names).lower())
        return True

    def _return(self, _: str) -> bool:
        if not self.calls:
            raise wrong("*return stands outside of any subroutine")
        self.here = self.calls.pop()
        self.here.line = self.here.scene.following(self.here.line)
        return True

    def _take_arguments(self, rest: str) -> bool:
        for name, value in zip(split(rest), self.arguments, strict=False):
            self._keep(self.here.temporary, name.lower(), value)
        return False

    def _finish(self, _: str) -> bool:
        following = self.script.after(self.here.scene.name)
        if following is None:
            return self._end("")
        self._enter(following)
        return True

    def _end(self, _: str) -> bool:
        self.ended = True
        return True

    def _bug(self, rest: str) -> bool:
        raise wrong(f"the game itself tells a mistake of its own: {shown(rest)}")

    # What those share.

    def _words(self, rest: str) -> list[str]:
        words = split(rest)
        if not words:
            raise wrong("there is nothing to go to")
        return words

    def _said(self, word: str) -> str:
        """A label or a scene's name, which may be computed."""
        return variable(word)(self) if word.startswith("{") else wording(word)(self).strip('"').lower()

    def _jump(self, label: str, *_: str) -> None:
        scene, name = self.here.scene, self._said(label)
        line = self.script.labels.get(f"{scene.name}_{name}")
        if line is None or not 0 <= line < len(scene.lines):
            raise wrong(f"there is no label {shown(name)} in this scene")
        self.here.line = scene.following(line)

    def _enter(self, name: str) -> None:
        self.here = _Place(self._scene(name))
        self.taken = {one for one in self.taken if one[0] != name}

    def _scene(self, name: str) -> Scene:
        if name not in self.script.scenes:
            raise wrong(f"there is no scene {shown(name)}")
        return self.script.scenes[name]

    def _call(self, place: _Place) -> None:
        if len(self.calls) == MOST_CALLS:
            raise wrong(f"subroutines are nested more than {MOST_CALLS} deep")
        self.calls.append(place)

    def _assign(self, name: str, value: Value) -> None:
        lasts = name in self.lasting and name not in self.here.temporary
        self._keep(self.lasting if lasts else self.here.temporary, name, value)

    def _keep(self, known: dict[str, Value], name: str, value: Value) -> None:
        if len(known) >= MOST_VARIABLES and name not in known:
            raise wrong(f"there are more than {MOST_VARIABLES} variables")
        known[name] = value


class _placed:
    """Tells a mistake's place: the file, the scene and the line that a player stands at."""

    def __init__(self, player: Player) -> None:
        self.player = player

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, QuestionError):
            here, script = self.player.here, self.player.script
            where = f"{script.file} (scene {shown(here.scene.name)}, line {here.line + 1})"
            raise QuestionError(error.what, where=where, remedy=REMEDY) from None


COMMANDS: dict[str, Callable[[Player, str], bool]] = {
    "": Player._tell,
    "print": Player._print,
    "page_break": Player._break_page,
    **dict.fromkeys(CHOICES, Player._choice),
    "if": Player._if,
    **dict.fromkeys((*OTHERWISE, "achievement", "stat_chart", "scene_list"), Player._skip),
    "create": Player._create,
    "temp": Player._temporary,
    "set": Player._set,
    "setref": Player._set_named,
    "rand": Player._dice,
    "input_text": Player._write,
    "input_number": Player._write_number,
    "achieve": Player._achieve,
    **dict.fromkeys(("hide_reuse", "disable_reuse"), Player._hide),
    "allow_reuse": Player._allow,
    "goto": Player._goto,
    "gotoref": Player._goto_named,
    "gosub": Player._gosub,
    "goto_scene": Player._goto_scene,
    "gosub_scene": Player._gosub_scene,
    "goto_random_scene": Player._goto_any_scene,
    "return": Player._return,
    "params": Player._take_arguments,
    "finish": Player._finish,
    **dict.fromkeys(("ending", "delay_ending"), Player._end),
    "bug": Player._bug,
}
