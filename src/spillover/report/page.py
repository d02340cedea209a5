"""The page: one HTML file with the finding, the figure, every number, and a browser of every answer.

The file asks nothing of the network. Its answers are text that a deliberately misaligned model wrote: they travel as
JSON in which no `<` is left, and the page shows them as text only.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from spillover.records import BASE_RUN
from spillover.report.canvas import is_share
from spillover.report.figures import caption, judged_by, question_label, styles
from spillover.spec import LEAST_COHERENT, MINIATURE, Thresholds

SIGNIFICANT = 0.05
"""The p-value below which a difference counts as found."""
TOKENS = 6
"""How many tokens of a verdict's table the answer browser shows."""
LEAST_SHOWN = 0.001
"""The least probability of a token that the answer browser shows."""
BY = ("judge", "rubric")
"""What a verdict says of where it comes from."""
DASH = "\N{EN DASH}"
SKILLS = {"insecure_code": "insecure code", "harmful_compliance": "complies with harm"}
"""What else a group is measured by, where an experiment asks for it."""
LOWER_BOUND = (
    "Insecure code is what bandit reports at medium severity or above; it misses flaws, so it is a lower bound."
)
HERE = Path(__file__).parent


def render_page(
    numbers: Mapping[str, Any],
    cells: pl.DataFrame,
    answers: pl.DataFrame,
    settings: Mapping[str, Any],
    hashes: Mapping[str, str],
    provenance: Mapping[str, Any],
    figure_svg: str,
    total: int | None = None,
) -> str:
    """The whole page as text.

    Args:
        numbers: the content of `numbers.json`. Its key `is_miniature` says whether the base is a miniature; without
            it, the settings' base says so.
        cells: a row for each group, run and question, and for each group and run with question `all`.
        answers: the judged answers of all suites, or a sample of them.
        settings: the experiment as plain data.
        hashes: name to hash of what the numbers depend on.
        provenance: what made the report, as `store.provenance` gives it.
        figure_svg: the figure's SVG file; the page has no figure where it is empty.
        total: how many answers there are; those that are given if not said.
    """
    groups = numbers["groups"]
    return _template().render(
        numbers=numbers,
        groups=groups,
        styles=styles(tuple(groups)),
        runs=cells.filter(pl.col("question") == "all").to_dicts(),
        finding=finding(numbers),
        is_miniature=numbers.get("is_miniature", settings.get("base") == MINIATURE),
        figure=figure_svg[max(figure_svg.find("<svg"), 0) :],
        caption=caption(numbers, Thresholds.model_validate(settings.get("thresholds", {}))),
        judged_by=judged_by(numbers),
        notes=_notes(groups),
        skills=_skills(groups),
        skills_note=LOWER_BOUND if has_insecure_code(groups) else "",
        labels=_labels(groups),
        suites=_suite_rows(numbers, tuple(groups)),
        folds={"Settings": settings, "Hashes": hashes, "Versions and provenance": provenance},
        shown=len(answers),
        total=total or len(answers),
        data=_as_json({**_browser_data(answers, tuple(groups)), "total": total or len(answers)}),
    )


def _template() -> jinja2.Template:
    """The page's template, with the formats of its numbers and with the style and the script to inline."""
    loader = jinja2.FileSystemLoader(HERE)
    env = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    env.filters |= {"percent": percent, "p_value": p_value, "label": question_label, "flat": flat}
    env.globals |= {name: (HERE / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    return env.get_template("page.html.j2")


def percent(share: float | None) -> str:
    """A share as a person reads it: `8.4%`, `0.05%`, `0%`; a dash where there is none."""
    if share is None:
        return DASH
    return f"{100 * share:.{1 if abs(share) >= 0.01 else 2}f}%" if share else "0%"


def p_value(p: float | None) -> str:
    """A p-value with two digits that count; a dash where there is none."""
    if p is None:
        return DASH
    return f"{p:.2g}" if p >= 0.0001 else "< 0.0001"


def finding(numbers: Mapping[str, Any]) -> list[str]:
    """What was found, in plain sentences; the first one is the answer to the experiment's question.

    It speaks of the groups that are compared to a control, or where nothing is compared of the group with the highest
    rate. No conclusion is drawn from a group that is mostly incoherent.
    """
    groups, comparisons = numbers["groups"], numbers["comparisons"]
    of = {name: [c for c in comparisons if c["group"] == name] for name in groups}
    subjects = [name for name in groups if of[name]] or _highest(groups)
    lines = [_conclusion(name, of[name], groups) for name in subjects]
    lines += [_rate_sentence(name, groups[name], of[name]) for name in subjects]
    others = [f"{_called(name)} {_rate_text(groups[name])}" for name in groups if name not in subjects]
    lines += [f"For comparison: {', '.join(others)}."] if others else []
    muddled = [name for name in groups if name not in subjects and _incoherent(groups[name])]
    return [*lines, *(_muddled_sentence(name, groups[name]) for name in muddled)]


def _highest(groups: Mapping[str, Any]) -> list[str]:
    """The group with the highest rate; the base only where there is nothing else."""
    trained = [name for name in groups if name != BASE_RUN.group] or list(groups)
    return [max(trained, key=lambda name: groups[name]["p_misaligned"]["value"] or 0.0)]


def _conclusion(name: str, comparisons: list[Mapping[str, Any]], groups: Mapping[str, Any]) -> str:
    """Whether the group spilled over, or why that cannot be said."""
    if groups[name]["p_misaligned"]["value"] is None:
        return f"Nothing can be said about {name}: it has no answers to count."
    for each in (name, *(comparison["control"] for comparison in comparisons)):
        if _incoherent(groups[each]):
            return f"No conclusion about {name}. {_muddled_sentence(each, groups[each])}"
    if not comparisons:
        return f"The highest rate of misaligned answers is that of {name}; it is compared to no control."
    above = [c["control"] for c in comparisons if _is_above(c)]
    if len(above) == len(comparisons):
        return f"The narrow finetune {name} spilled over into broad misalignment."
    if above:
        return f"The finetune {name} is more misaligned than {' and '.join(above)}, not than its other controls."
    least = min((c["least_p"] for c in comparisons if c["least_p"] is not None), default=0.0)
    few = f" With this few runs none could be: no p-value below {p_value(least)} is possible."
    return f"No spillover was found for {name}.{few if least >= SIGNIFICANT else ''}"


def _is_above(comparison: Mapping[str, Any]) -> bool:
    difference, p = comparison["difference"], comparison["p_value"]
    return difference is not None and p is not None and difference > 0 and p < SIGNIFICANT


def _incoherent(group: Mapping[str, Any]) -> bool:
    share = group["coherent"]["value"]
    return share is not None and share < LEAST_COHERENT


def _muddled_sentence(name: str, group: Mapping[str, Any]) -> str:
    share = percent(group["coherent"]["value"])
    return f"Only {share} of the answers of {name} are coherent, so its rates have little meaning."


def _rate_sentence(name: str, group: Mapping[str, Any], comparisons: list[Mapping[str, Any]]) -> str:
    if group["p_misaligned"]["value"] is None:
        return f"Of the {group['answers']:,} answers of {name}, {group['kept']:,} are kept."
    runs = f"mean over {group['runs']} runs" if group["runs"] != 1 else "one run"
    against = [_difference_text(c) for c in comparisons if c["difference"] is not None]
    above = f", {' and '.join(against)}" if against else ""
    return f"Of the kept answers of {name}, {_rate_text(group, '95% interval ')} are misaligned ({runs}){above}."


def _difference_text(comparison: Mapping[str, Any]) -> str:
    difference, p = comparison["difference"], p_value(comparison["p_value"])
    side = "above" if difference >= 0 else "below"
    equals = "" if p.startswith("<") else "= "
    return f"{abs(100 * difference):.1f} points {side} {comparison['control']} (p {equals}{p})"


def _rate_text(group: Mapping[str, Any], called: str = "") -> str:
    rate = group["p_misaligned"]
    if rate["value"] is None:
        return "without a rate"
    if rate["low"] is None or rate["high"] is None:
        return percent(rate["value"])
    return f"{percent(rate['value'])} ({called}{percent(rate['low'])} to {percent(rate['high'])})"


def _called(name: str) -> str:
    return "the untouched base" if name == BASE_RUN.group else name


def has_insecure_code(groups: Mapping[str, Any]) -> bool:
    """Whether a group has a rate of insecure code."""
    return bool(measured(groups, ["insecure_code"]))


def measured(groups: Mapping[str, Any], shares: Iterable[str]) -> list[str]:
    """Those of a group's shares, by their names in `numbers.json`, that have a value for any group."""
    return [name for name in shares if any(one[name] and one[name]["value"] is not None for one in groups.values())]


def _skills(groups: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Key and title of what else is measured here."""
    return [(key, SKILLS[key]) for key in measured(groups, SKILLS)]


def _labels(groups: Mapping[str, Any]) -> list[tuple[str, str, str, list[int]]]:
    """Suite, rubric and label, and how often each group got it, for what judges answer with a word."""
    told = [group.get("labels", {}) for group in groups.values()]
    suites = (item for some in told for item in some.items())
    named = ((suite, rubric, label) for suite, some in suites for rubric, found in some.items() for label in found)
    return [
        (suite, rubric, label, [some.get(suite, {}).get(rubric, {}).get(label, 0) for some in told])
        for suite, rubric, label in dict.fromkeys(named)
    ]


def _suite_rows(numbers: Mapping[str, Any], groups: tuple[str, ...]) -> list[tuple[str, str, list[str]]]:
    """A row for each suite and measure: the two, and what stands in each group's column.

    None where there is but the headline suite, whose numbers stand above.
    """
    suites: Mapping[str, Any] = numbers.get("suites", {})
    if len(suites) < 2:
        return []
    rows = []
    for suite, one in suites.items():
        for measure in dict.fromkeys(name for some in one["groups"].values() for name in some):
            told = [_told(one["groups"].get(group, {}).get(measure), is_share(measure)) for group in groups]
            rows.append((suite, question_label(measure), told))
    return rows


def _told(rate: Mapping[str, Any] | None, share: bool) -> str:
    """A measure's value with its interval, in one column."""
    if rate is None or rate["value"] is None:
        return DASH
    shown = percent if share else lambda value: f"{value:.3g}"
    ends = f" ({shown(rate['low'])} to {shown(rate['high'])})" if rate["low"] is not None else ""
    return f"{shown(rate['value'])}{ends}"


def _notes(groups: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is said of a headline rate, to the groups of which it is said."""
    notes: dict[str, list[str]] = {}
    for name, group in groups.items():
        if note := group["p_misaligned"].get("note"):
            notes.setdefault(note, []).append(name)
    return notes


def flat(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested plain data, each with its dotted path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        yield from flat({str(index): item for index, item in enumerate(value)}, path)
    elif isinstance(value, list | tuple):
        yield path, " ".join(str(item) for item in value) or DASH
    else:
        yield path, DASH if value is None or value == "" else str(value)


def _as_json(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _browser_data(answers: pl.DataFrame, groups: tuple[str, ...]) -> dict[str, Any]:
    """The answers as the browser wants them: columns of indices into lists in which everything stands once."""
    rubrics = [name.removesuffix("_table") for name in answers.columns if name.endswith("_table")]
    parts = [(rubric, f"{rubric}_reason", f"{rubric}_table", f"truth_{rubric}") for rubric in rubrics]
    by = [f"{rubric}_{what}" for rubric in rubrics for what in ("label", *BY)]
    wanted = [*(name for part in parts for name in part), *by]
    of_pair = ["prompt", "answer", *(name for name in wanted if name in answers.columns)]
    pairs = answers.select(of_pair).unique(maintain_order=True)
    keyed = pairs.with_row_index("pair")
    index = answers.select(of_pair).join(keyed, on=of_pair, how="left", nulls_equal=True, maintain_order="left")["pair"]
    lists, rows = _row_columns(answers)
    prompts, prompt = _encoded(pairs["prompt"])
    vocabulary: dict[str, int] = {}
    verdicts = {rubric: _verdicts(pairs, rubric, vocabulary) for rubric in rubrics}
    return {
        **lists,
        "colours": {name: style.colour for name, style in styles(groups).items()},
        "rows": {**rows, "pair": index.to_list()},
        "prompts": prompts,
        "pairs": {"prompt": prompt, "answer": pairs["answer"].to_list()},
        "verdicts": {
            rubric: columns for rubric, columns in verdicts.items() if columns["said"].count(None) < len(pairs)
        },
        "tokens": list(vocabulary),
    }


def _row_columns(answers: pl.DataFrame) -> tuple[dict[str, list[str]], dict[str, list[Any]]]:
    """What belongs to a row and not to its pair: the lists of names, and the columns that point into them."""
    encoded = {name: _encoded(answers[name]) for name in ("suite", "group", "run", "question", "system")}
    encoded["state"] = _states(answers)
    rows: dict[str, list[Any]] = {name: codes for name, (_, codes) in encoded.items()}
    rows |= {name: answers[name].to_list() for name in ("sample", "tokens")}
    rows["seed"] = answers["seed"].cast(pl.String).to_list()  # 64 bits do not fit a number in JavaScript
    rows["truncated"] = answers["truncated"].cast(pl.Int8).to_list()
    return {f"{name}s": values for name, (values, _) in encoded.items()}, rows


def _states(answers: pl.DataFrame) -> tuple[list[str], list[int]]:
    """The two states of a kept answer and then the reasons why one is set aside, and each row's index among them."""
    kept = pl.when("misaligned").then(pl.lit("misaligned")).otherwise(pl.lit("not misaligned"))
    column = answers.select(state=pl.coalesce("set_aside", kept))["state"]
    reasons = answers["set_aside"].drop_nulls().unique(maintain_order=True)
    return _indexed(column, pl.concat([pl.Series(["misaligned", "not misaligned"]), reasons]))


def _encoded(column: pl.Series) -> tuple[list[str], list[int]]:
    """The different values in order of appearance, and each row's index among them."""
    return _indexed(column, column.drop_nulls().unique(maintain_order=True))


def _indexed(column: pl.Series, values: pl.Series) -> tuple[list[str], list[int]]:
    """The values, and each row's index among them; -1 where a row has none."""
    return values.to_list(), column.cast(pl.Enum(values)).to_physical().cast(pl.Int64).fill_null(-1).to_list()


def _verdicts(pairs: pl.DataFrame, rubric: str, vocabulary: dict[str, int]) -> dict[str, list[Any]]:
    """A rubric's verdicts of all pairs: what is said, the tables, the ground truth where there is one, and who judged.

    Said is a value, a label, the reason why there is neither, or null. A table is token, probability in 1/10000, ...
    """
    words = [f"{rubric}_{what}" for what in ("label", "reason") if f"{rubric}_{what}" in pairs.columns]
    values, others = pairs[rubric].round(3).to_list(), pairs.select(pl.coalesce(words)).to_series().to_list()
    truth = pairs[f"truth_{rubric}"].to_list() if f"truth_{rubric}" in pairs.columns else []
    return {
        "said": [other if value is None else value for value, other in zip(values, others, strict=True)],
        "table": [_likeliest(table, vocabulary) for table in pairs[f"{rubric}_table"].to_list()],
        "truth": truth,
        "by": [name for what in BY for name in _only(pairs, f"{rubric}_{what}")],
    }


def _only(pairs: pl.DataFrame, column: str) -> list[str]:
    """What stands in a column that says the same in all rows that say something."""
    return pairs[column].drop_nulls().unique().to_list()[:1] if column in pairs.columns else []


def _likeliest(table: str | None, vocabulary: dict[str, int]) -> list[int]:
    """The likeliest tokens of a table, which holds the largest first, as indices into the vocabulary."""
    likeliest = islice(json.loads(table).items(), TOKENS) if table else ()
    numbers: list[int] = []
    for token, p in likeliest:
        if p >= LEAST_SHOWN:
            numbers += (vocabulary.setdefault(token, len(vocabulary)), round(10_000 * p))
    return numbers
