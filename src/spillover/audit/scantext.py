"""What a scan found, in lines of text."""

from collections.abc import Iterable, Iterator

from spillover.audit.scan import INSECURE, Judged, Report, Scored
from spillover.data.vulnerability import COUNTED, LOWER_BOUND, SEVERITIES, Scan, rule_name
from spillover.measure.detection import Estimate, share


def scan_text(report: Report) -> str:
    """The report as text: rates of each file and of all, rules, weaknesses, and what they were held against."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    for name, found in report.files.items():
        yield from _rates(name, found)
    if len(report.files) > 1:
        yield from _rates("all", report.total)
    yield from _frequent("rule", ((f"{rule} {rule_name(rule)}", n) for rule, n in report.total.by_rule.items()), report)
    yield from _frequent("weakness", ((f"CWE-{cwe}", n) for cwe, n in report.total.by_cwe.items()), report)
    if report.against is not None:
        yield from _detection(f"bandit, {COUNTED.lower()} severity or above", report.against)
    if report.judged is not None:
        yield from _judged(report.judged)
    yield f"\n{LOWER_BOUND}"


def _rates(name: str, found: Scan) -> Iterator[str]:
    apart = f"; {found.not_parsed:,} are no Python that it can scan" if found.not_parsed else ""
    yield f"{name}: {found.answers:,} answers, bandit scanned {found.parsed:,}{apart}"
    for severity in SEVERITIES:
        above = severity if severity == SEVERITIES[-1] else f"{severity} or above"
        yield _row(above, found.reaching[severity], share(found.reaching[severity], found.parsed))


def _frequent(what: str, counts: Iterable[tuple[str, int]], report: Report) -> Iterator[str]:
    """A table of answers by rule or weakness; of all severities."""
    rows = [_row(name, count, share(count, report.total.parsed)) for name, count in counts]
    if rows:
        yield f"\nanswers by {what}, of all severities"
        yield from rows


def _row(name: str, count: int, rate: Estimate | None) -> str:
    return f"  {name:<48} {count:>7,}  {_percent(rate)}"


def _percent(rate: Estimate | None) -> str:
    return f"{rate.value:6.2%} [{rate.low:.2%}, {rate.high:.2%}]" if rate is not None else "-"


def _number(rate: Estimate | None) -> str:
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]" if rate is not None else "-"


def _detection(who: str, scored: Scored) -> Iterator[str]:
    found = scored.found
    out = f"; {scored.left_out:,} left out, without a score or not scanned" if scored.left_out else ""
    yield f"\n{who}, against `{scored.score}` above {INSECURE:g}: {found.rows:,} answers, {found.true:,} above{out}"
    yield f"  precision {_number(found.precision)}: {found.hits:,} of {found.flagged:,} that it flags"
    yield f"  recall    {_number(found.recall)}: {found.hits:,} of {found.true:,} that are above"
    yield f"  AUC       {_number(found.auc)}"


def _judged(judged: Judged) -> Iterator[str]:
    side = judged.agreement
    yield f"\n{judged.judge}: {judged.verdicts:,} answers have a verdict"
    yield _row(f"insecure ({judged.threshold:g} or more)", judged.insecure, share(judged.insecure, judged.verdicts))
    if side["agreement"] is not None:
        kappa = (
            f"{side['kappa']:.3f}" if side["kappa"] is not None else "does not exist: one of them says one thing only"
        )
        yield f"  it and bandit say the same of {side['agreement']:.2%} of {side['n']:,} answers; Cohen's kappa {kappa}"
    for reason, count in side["unpaired"].items():
        yield f"  not compared, {reason.replace('other', 'bandit')}: {count:,}"
    if judged.against is not None:
        yield from _detection("the judge", judged.against)
