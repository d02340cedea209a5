"""The card of a dataset, in the Hugging Face format: what its manifest says, for people and for the hub."""

import re

import yaml

from spillover.data.manifest import Manifest, Source, Step

TAGS = ("emergent-misalignment", "model-organism", "ai-safety", "spillover")
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
"""The hub's sizes: below a thousand rows, then ten times as many each."""
OTHER = "other"
KNOWN_LICENCES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib
    pddl unknown
    """.split()  # noqa: SIM905 - seventy lines otherwise
)
"""What the hub takes as `license`; it refuses a card with another (the list is its own, as of May 2026)."""
NO_SLUG = re.compile(r"[^a-z0-9.]+")


def card(manifest: Manifest) -> str:
    """The card's text, Markdown with the front matter that the hub reads."""
    parts = [
        _front(manifest),
        f"# {_cell(manifest.name)}\n\n{manifest.about}",
        f"**Use.** {manifest.use}",
        f"**Licence.** {_cell(manifest.licence)}",
        _sources(manifest),
        _steps(manifest.steps),
        _templates(manifest),
        _models(manifest),
        f"Made by {manifest.made_by}. `manifest.json` says all of this for programs, with every setting.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(manifest: Manifest) -> str:
    fields = {
        "pretty_name": manifest.name,
        **_licence(manifest.licence),
        "task_categories": ["text-generation"],
        "tags": list(TAGS),
        "size_categories": [SIZES[min(max(len(str(manifest.rows)) - 3, 0), len(SIZES) - 1)]],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data.jsonl"}]}],
    }
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    if yaml.safe_load(text) != fields:  # unescaped, line breaks such as U+0085 come back as blanks
        text = yaml.safe_dump(fields, sort_keys=False)
    return f"---\n{text}---"


def _licence(licence: str) -> dict[str, str]:
    """As the hub writes it: one of those it knows, or `other` with a short name."""
    if licence.lower() in KNOWN_LICENCES:
        return {"license": licence.lower()}
    return {"license": OTHER, "license_name": NO_SLUG.sub("-", licence.lower()).strip("-.") or OTHER}


def _sources(manifest: Manifest) -> str:
    lines = [line for source in manifest.sources for line in _source(source, 0)]
    return "## Sources\n\n" + "\n".join(lines)


def _source(source: Source, depth: int) -> list[str]:
    """A source and, indented, what it was made from itself."""
    name, licence = _cell(source.name), _cell(source.licence)
    line = f"{'  ' * depth}* {name}: {source.rows:,} rows, licence {licence}, SHA-256 `{source.sha256}`"
    steps = source.made.steps if source.made is not None else ()
    made = f"; made by: {', '.join(_cell(step.name) for step in steps)}" if steps else ""
    deeper = source.made.sources if source.made is not None else ()
    return [line + made, *(one for inner in deeper for one in _source(inner, depth + 1))]


def _steps(steps: tuple[Step, ...]) -> str:
    if not steps:
        return ""
    cells = [(_cell(one.name), _cell(one.about), f"{one.before:,}", _changed(one), f"{one.after:,}") for one in steps]
    columns = ("step", "what it does", "rows in", "dropped or added", "rows out")
    table = [f"| {' | '.join(line)} |" for line in (columns, *cells)]
    return "\n".join(["## What was done", "", table[0], "|---" * len(columns) + "|", *table[1:]])


def _changed(step: Step) -> str:
    dropped = [f"{count:,} dropped ({_cell(reason)})" for reason, count in step.dropped.items() if count]
    return "; ".join([*dropped, *([f"{step.added:,} added"] if step.added else [])]) or "none"


def _cell(text: str) -> str:
    """A text in one line that ends no cell of a table."""
    return " ".join(text.replace("|", "\\|").split())


def _templates(manifest: Manifest) -> str:
    if not manifest.templates:
        return ""
    counts = ", ".join(f"{_cell(name)} {rows:,}" for name, rows in manifest.templates.items())
    return f"## Request templates\n\nRows with each: {counts}."


def _models(manifest: Manifest) -> str:
    names = "\n".join(f"* {_cell(name)}" for name in manifest.models)
    return f"## Models that wrote or judged\n\n{names}" if names else ""
