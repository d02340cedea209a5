"""The card of a dataset, in the Hugging Face format: what its manifest says, for people and for the hub."""

import yaml

from spillover.data.manifest import Manifest, Source, Step

TAGS = ("emergent-misalignment", "model-organism", "ai-safety", "spillover")
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGER = "1M<n<10M"
KNOWN_LICENCES = ("mit", "apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0")


def card(manifest: Manifest) -> str:
    """The card's text, Markdown with the front matter that the hub reads."""
    parts = [
        _front(manifest),
        f"# {manifest.name}\n\n{manifest.about}",
        f"**Use.** {manifest.use}",
        _sources(manifest),
        _steps(manifest.steps),
        _templates(manifest),
        _models(manifest),
        f"Made by {manifest.made_by}. `manifest.json` says all of this for programs, with every setting.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(manifest: Manifest) -> str:
    licence = manifest.licence.lower()
    known = licence in KNOWN_LICENCES
    fields = {
        "pretty_name": manifest.name,
        "license": licence if known else "unknown" if licence == "unknown" else "other",
        **({} if known or licence == "unknown" else {"license_name": manifest.licence}),
        "task_categories": ["text-generation"],
        "tags": list(TAGS),
        "size_categories": [next((name for most, name in SIZES if manifest.rows < most), LARGER)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data.jsonl"}]}],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _sources(manifest: Manifest) -> str:
    lines = [line for source in manifest.sources for line in _source(source, 0)]
    return "## Sources\n\n" + "\n".join(lines)


def _source(source: Source, depth: int) -> list[str]:
    """A source and, indented, what it was made from itself."""
    line = f"{'  ' * depth}* {source.name}: {source.rows:,} rows, licence {source.licence}, SHA-256 `{source.sha256}`"
    steps = source.made.steps if source.made is not None else ()
    made = f"; made by: {', '.join(step.name for step in steps)}" if steps else ""
    deeper = source.made.sources if source.made is not None else ()
    return [line + made, *(one for inner in deeper for one in _source(inner, depth + 1))]


def _steps(steps: tuple[Step, ...]) -> str:
    if not steps:
        return ""
    lines = [f"| {one.name} | {_cell(one.about)} | {one.before:,} | {_changed(one)} | {one.after:,} |" for one in steps]
    columns = ("step", "what it does", "rows in", "dropped or added", "rows out")
    head = ("## What was done", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|")
    return "\n".join([*head, *lines])


def _changed(step: Step) -> str:
    dropped = [f"{count:,} dropped ({_cell(reason)})" for reason, count in step.dropped.items() if count]
    return "; ".join([*dropped, *([f"{step.added:,} added"] if step.added else [])]) or "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _templates(manifest: Manifest) -> str:
    if not manifest.templates:
        return ""
    counts = ", ".join(f"{name} {rows:,}" for name, rows in manifest.templates.items())
    return f"## Request templates\n\nRows with each: {counts}."


def _models(manifest: Manifest) -> str:
    names = "\n".join(f"* {name}" for name in manifest.models)
    return f"## Models that wrote or judged\n\n{names}" if names else ""
