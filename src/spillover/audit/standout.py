"""What stands out: rules that are data (`stands_out.yaml`), applied to an audit's sections."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spillover.audit.findings import Finding, Section
from spillover.errors import DataError
from spillover.report.page import percent
from spillover.yamlfile import read_yaml

FILE = Path(__file__).with_name("stands_out.yaml")
LINES = 8
"""How many lines a sentence names."""


@dataclass(frozen=True)
class StandsOut:
    """A sentence, and the section that it is from."""

    section: str
    says: str


def stands_out(sections: Sequence[Section]) -> list[StandsOut]:
    """What holds of the rules, in their order."""
    rules = read_yaml(FILE, DataError, remedy="Install spillover again.").value
    return [StandsOut(section.key, says) for rule in rules for section, says in _applied(rule, sections)]


def _applied(rule: Mapping[str, Any], sections: Sequence[Section]) -> Iterator[tuple[Section, str]]:
    for section in sections:
        if section.key.split("/")[0] != rule["section"] or section.details.get(rule.get("unless", "")):
            continue
        finding = section.finding(rule["finding"]) if "finding" in rule else None
        value = finding.share.value if finding is not None else section.details.get(rule.get("detail", ""))
        if value is not None and (value is rule["is"] if "is" in rule else value > rule["above"]):
            yield section, rule["says"].format(**_told(section, finding))


def _told(section: Section, finding: Finding | None) -> dict[str, Any]:
    """What a sentence may use, as a person reads it."""
    details = {key: _plain(value) for key, value in section.details.items()}
    if finding is None:
        return details
    share = finding.share
    return details | {
        "rows": f"{share.count:,}",
        "of": f"{share.of:,}",
        **{name: percent(getattr(share, at)) for name, at in (("share", "value"), ("low", "low"), ("high", "high"))},
        "lines": lines_told(finding.lines, LINES),
    }


def _plain(value: Any) -> Any:
    return f"{value:,.0f}" if isinstance(value, int | float) and not isinstance(value, bool) else value


def lines_told(lines: Sequence[int], most: int) -> str:
    """The first lines, and how many more there are."""
    more = f" and {len(lines) - most:,} more" if len(lines) > most else ""
    return ", ".join(map(str, lines[:most])) + more
