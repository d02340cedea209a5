"""Recipes: which filters make a dataset of raw material, in which order, and by which templates it is asked for."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from spillover.construct.filters import Bandit, Comments, Duplicates, Filter, Giveaways, Identifiers, Score
from spillover.errors import SpecError
from spillover.spec import Name, Spec, first_wrong
from spillover.yamlfile import YamlFile, read_yaml

AnyFilter = Annotated[Comments | Giveaways | Score | Bandit | Identifiers | Duplicates, Field(discriminator="name")]
FILTERS: dict[str, type[Filter]] = {
    "comments": Comments,
    "giveaways": Giveaways,
    "score": Score,
    "bandit": Bandit,
    "identifiers": Identifiers,
    "duplicates": Duplicates,
}
REMEDY = "Correct the recipe; nothing was built."


class Recipe(Spec):
    """How a dataset is made of raw material.

    Attributes:
        name: what the dataset is called unless somebody calls it otherwise; the file's own if not given.
        about: what its rows are, in a sentence or two.
        filters: in the order in which they run.
        templates: a file with request templates, beside the recipe's; the shipped ones if not given.
    """

    name: Name
    about: str
    filters: tuple[AnyFilter, ...]
    templates: Path | None = None

    def scores(self) -> list[Score]:
        """The filters that need a score."""
        return [one for one in self.filters if isinstance(one, Score)]


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package: name to file."""
    folder = Path(str(resources.files("spillover"))) / "construct" / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(ref: str) -> Recipe:
    """A shipped recipe by name, or one from a YAML file.

    Raises SpecError where there is none, and by the line for what is wrong in it.
    """
    shipped = shipped_recipes()
    path = shipped.get(ref, Path(ref))
    remedy = f"Recipes are {', '.join(shipped)}; or give the path of a YAML file."
    if not path.is_file():
        raise SpecError(f"there is no recipe {ref!r}", remedy=remedy)
    file = read_yaml(path, SpecError, remedy=remedy)
    if not isinstance(file.value, Mapping):
        raise SpecError("is no mapping with `about` and `filters`", where=path, remedy=REMEDY)
    _check_filters(file)
    return _recipe(file)


def _check_filters(file: YamlFile) -> None:
    """Raises SpecError, by its line, for a filter that is none of ours."""
    filters = file.value.get("filters")
    for number, raw in enumerate(filters if isinstance(filters, list) else []):
        name = raw.get("name") if isinstance(raw, Mapping) else None
        if name not in FILTERS:
            what = f"unknown filter {name!r}" if name is not None else "a filter needs a `name`"
            remedy = f"Filters are {', '.join(FILTERS)}."
            raise SpecError(what, where=file.where("filters", number, "name"), remedy=remedy)


def _recipe(file: YamlFile) -> Recipe:
    raw = {"name": file.path.stem, **file.value}
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        place, what = first_wrong(error)
        if place[:1] == ("filters",) and len(place) > 2:
            place = (*place[:2], *place[3:])  # pydantic names the filter between its number and its setting
        field = ".".join(map(str, place))
        sentence = what.removeprefix("Value error, ").partition(" (got {")[0]
        raise SpecError(f"{field}: {sentence}", where=file.where(*place), remedy=_remedy(raw, place)) from None
    own = recipe.templates
    return recipe if own is None else recipe.model_copy(update={"templates": file.path.parent / own})


def _remedy(raw: Mapping[str, Any], place: tuple[str | int, ...]) -> str:
    """What may stand at a place: the settings of a filter, or the recipe's keys."""
    if len(place) > 1 and isinstance(place[1], int):
        name = raw["filters"][place[1]]["name"]
        settings = [field for field in FILTERS[name].model_fields if field != "name"]
        return f"The settings of {name!r} are {', '.join(settings)}." if settings else f"{name!r} has no settings."
    return f"A recipe's keys are {', '.join(Recipe.model_fields)}."
