"""A person's overrides: what they leave of an experiment, as plain data.

Whether that is still an experiment is checked by whoever reads it.
"""

from collections.abc import Mapping
from typing import Any

from spillover.errors import SpecError
from spillover.records import BASE_RUN


def kept_groups(raw: Mapping[str, Any], names: tuple[str, ...], seeds: int | None) -> dict[str, Any]:
    """The named groups of an experiment, or all if none is named, with so many runs each if that is given.

    Raises:
        SpecError: an unknown group, or a group whose runs go on from one that is left out.
    """
    groups = raw["groups"]
    unknown = [name for name in names if name not in groups]
    if unknown:
        raise SpecError(f"unknown group {unknown[0]!r}", remedy=f"Groups of {raw['name']}: {', '.join(groups)}.")
    kept = {name: spec for name, spec in groups.items() if not names or name in names}
    lost = next((spec["after"] for spec in kept.values() if spec["after"] not in (None, *kept)), None)
    if lost is not None:
        raise SpecError(f"the group {lost!r} is gone on from, and is left out", remedy=f"Add {lost} to --groups.")
    return {name: _with_seeds(spec, seeds) for name, spec in kept.items()}


def _with_seeds(group: Mapping[str, Any], seeds: int | None) -> dict[str, Any]:
    return {**group, "seeds": group["seeds"] if seeds is None else seeds, "models": group["models"][:seeds]}


def asked_of(some: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """What these groups are still asked, of suites, choices or benchmarks: nothing that was for others alone."""
    found = {}
    for name, one in some.items():
        left = [group for group in one["groups"] if group in (BASE_RUN.group, *kept)]
        if left or not one["groups"]:
            found[name] = {**one, "groups": left}
    return found


def with_samples(raw: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """An experiment's suites, with so many samples of the headline suite and at most so many of the others."""
    return {name: {**one, **_samples(one, samples, name == raw["headline"])} for name, one in raw["suites"].items()}


def _samples(suite: Mapping[str, Any], samples: int, is_headline: bool) -> dict[str, int | None]:
    """What `--samples` changes of a suite. Where the question file says how many, it can only say fewer."""
    if is_headline:
        return {"samples": samples, "base_samples": None, "at_most": None}
    of_base = suite["base_samples"] and min(samples, suite["base_samples"])
    if suite["samples"] is not None:
        return {"samples": min(samples, suite["samples"]), "base_samples": of_base}
    return {"at_most": min(samples, suite["at_most"] or samples), "base_samples": of_base}


def with_max_tokens(raw: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
    """The fields that say how long an answer may be, on any base."""
    own = raw["miniature"]
    return {
        "sampling": {**raw["sampling"], "max_tokens": max_tokens},
        "miniature": {**own, "sampling": {**own["sampling"], "max_tokens": max_tokens}},
    }
