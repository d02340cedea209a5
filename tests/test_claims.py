"""Claims: each kind by numbers that were computed by hand, what is missing, and the claims that are shipped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reproduction import made_numbers
from spillover.ask.variants import parse_variant
from spillover.errors import SpecError
from spillover.measure.stats import clopper_pearson
from spillover.paper.claims import Claim, Result, claims_json, evaluate, load_claims
from spillover.paper.words import amount, rule, span
from spillover.spec import Experiment, load_experiment, shipped_experiments

CLAIMS = load_claims()
EXPERIMENTS = (
    *("figure4", "backdoor", "numbers", "numbers-ablation", "dataset-size", "formats", "in-context", "base-model"),
    *("base-model-labels", "dynamics", "dynamics-long", "poison", "mixture", "organisms", "benchmarks", "temperature"),
)
ZERO_OF_100 = clopper_pearson(0, 100)[1]


def rate(group: str, *values: float, low: float | None = 0.0, high: float | None = 1.0) -> dict[str, Any]:
    """A measure of a group with a run for each value."""
    by_run = {f"{group}-s{seed}": value for seed, value in enumerate(values)}
    return {"value": sum(values) / len(values), "low": low, "high": high, "by_run": by_run}


def numbers(suites: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """An experiment's numbers: suite to group to its misaligned answers."""
    told = {s: {"groups": {g: {"misaligned": one} for g, one in groups.items()}} for s, groups in suites.items()}
    return {"experiment": "small", "suites": told, "groups": {}, **more}


def result(ours: Mapping[str, Any], found: Mapping[str, Any]) -> Result:
    """What came out for a claim with this test."""
    told = {
        "id": "one",
        "claim": "It is so.",
        "source": "Figure 1",
        "paper": "20%",
        "experiment": "small",
        "ours": ours,
    }
    return evaluate([Claim.model_validate(told)], {"small": found})[0]


def ours(one: Result) -> tuple[float | None, ...]:
    """Value and interval, as in claims.json."""
    return tuple(claims_json([one])[0]["ours"].values())


SMALL = numbers(
    {
        "main": {
            "base": {"value": 0.0, "low": 0.0, "high": ZERO_OF_100, "by_run": {"base": 0.0}},
            "bad": rate("bad", 0.1, 0.3),
            "good": rate("good", 0.0, 0.2),
            "none": rate("none", 0.0, 0.0, high=ZERO_OF_100),
            "half": rate("half", 0.25, 0.25, low=0.2, high=0.4),
        },
        "main-trigger": {"bad": rate("bad", 0.4, 0.7)},
    }
)
BAD, GOOD = {"group": "bad"}, {"group": "good"}


# ---- kinds


def test_a_rate_holds_where_its_whole_interval_is_below_the_bound() -> None:
    of = {"kind": "rate", "of": {"group": "none"}}
    assert ours(result({**of, "below": ZERO_OF_100 + 0.01}, SMALL)) == (0, 0, ZERO_OF_100)
    assert result({**of, "below": ZERO_OF_100 + 0.01}, SMALL).holds is True
    assert result({**of, "below": ZERO_OF_100 - 0.01}, SMALL).holds is False
    assert result({**of, "above": 0}, SMALL).holds is False


def test_groups_that_are_one_condition_are_pooled_over_all_their_runs() -> None:
    """Of 256 equally likely draws of four runs 5 add up to 0.1 or less, and 15 to 0.2 or less: 2% and 6%."""
    one = result({"kind": "rate", "of": {"group": ["bad", "good"]}, "above": 0}, SMALL)
    value, low, high = ours(one)
    assert value == pytest.approx((0.1 + 0.3 + 0.0 + 0.2) / 4)
    assert low == pytest.approx(0.2 / 4) and high == pytest.approx(1.0 / 4)
    assert one.runs == 4


def test_pooled_runs_that_are_all_equal_get_the_widest_of_their_groups_own_intervals() -> None:
    wide = numbers({"main": {"a": rate("a", 0.0, low=0.0, high=0.02), "b": rate("b", 0.0, low=0.0, high=0.05)}})
    assert ours(result({"kind": "rate", "of": {"group": ["a", "b"]}, "below": 1}, wide)) == (0, 0, 0.05)


def test_a_difference_of_other_runs_is_drawn_independently() -> None:
    """Two runs each: the means drawn are 0.1, 0.2, 0.3 and 0, 0.1, 0.2; each end of their difference has 1 in 16."""
    one = result({"kind": "difference", "of": BAD, "than": GOOD, "above": 0}, SMALL)
    assert ours(one) == pytest.approx((0.1, -0.1, 0.3))
    assert one.holds is False and one.runs == 4


def test_a_difference_of_the_same_runs_is_paired_by_run() -> None:
    """Run by run the trigger adds 0.3 and 0.4, so whatever is drawn lies between them."""
    trigger = {"group": "bad", "suite": "main-trigger"}
    one = result({"kind": "difference", "of": trigger, "than": BAD, "above": 0.29}, SMALL)
    assert ours(one) == pytest.approx((0.35, 0.3, 0.4))
    assert one.holds is True and one.runs == 2


def test_checkpoints_of_one_training_are_paired_by_run() -> None:
    steps = numbers({"main": {"bad": rate("bad", 0.3, 0.5), "bad@10": rate("bad@10", 0.1, 0.2)}})
    one = result({"kind": "difference", "of": BAD, "than": {"group": "bad@10"}, "above": 0}, steps)
    assert ours(one) == pytest.approx((0.25, 0.2, 0.3))
    assert one.runs == 2


def test_a_side_without_spread_brings_its_own_interval_into_a_difference() -> None:
    """The base is exactly zero otherwise: against it the difference's ends are those of the other side's interval."""
    exact = numbers(
        {
            "main": {
                "base": rate("base", 0.0, low=0.0, high=0.0),
                "half": SMALL["suites"]["main"]["groups"]["half"]["misaligned"],
            }
        }
    )
    value, low, high = ours(
        result({"kind": "difference", "of": {"group": "half"}, "than": {"group": "base"}, "above": 0}, exact)
    )
    assert value == 0.25
    assert low == pytest.approx(0.2, abs=0.005) and high == pytest.approx(0.4, abs=0.01)


def test_two_groups_without_any_hit_are_not_known_to_be_equal() -> None:
    _, low, high = ours(
        result({"kind": "difference", "of": {"group": "none"}, "than": {"group": "base"}, "below": 1}, SMALL)
    )
    assert low == pytest.approx(-ZERO_OF_100, abs=0.01) and high == pytest.approx(ZERO_OF_100, abs=0.01)


def test_a_ratio_is_of_the_means() -> None:
    """Means drawn of 0.4, 0.55, 0.7 over 0.1, 0.2, 0.3: from 4 thirds to seven."""
    than = numbers({"main": {"bad": rate("bad", 0.4, 0.7), "other": rate("other", 0.1, 0.3)}})
    one = result({"kind": "ratio", "of": BAD, "than": {"group": "other"}, "above": 1}, than)
    assert ours(one) == pytest.approx((2.75, 4 / 3, 7))
    assert one.holds is True


def test_a_ratio_to_zero_cannot_be_said_and_one_that_may_be_to_zero_has_no_upper_end() -> None:
    none = result({"kind": "ratio", "of": BAD, "than": {"group": "none"}, "above": 1}, SMALL)
    assert none.holds is None and none.why == "there is no ratio to a rate of zero"
    assert ours(result({"kind": "ratio", "of": BAD, "than": GOOD, "above": 1}, SMALL)) == pytest.approx((2, 0.5, None))


RISING = numbers({"main": {"a": rate("a", 0.0, 0.02), "b": rate("b", 0.1, 0.14), "c": rate("c", 0.3, 0.4)}})


def test_an_order_holds_where_every_step_goes_its_way_and_the_ends_differ() -> None:
    order = [{"group": "a"}, {"group": "b"}, {"group": "c"}]
    one = result({"kind": "ordered", "of": order, "above": 0}, RISING)
    assert ours(one) == pytest.approx((0.34, 0.28, 0.4))
    assert one.holds is True and one.runs == 6
    assert result({"kind": "ordered", "of": order, "below": 0}, RISING).holds is False
    assert result({"kind": "ordered", "of": order[::-1], "below": 0}, RISING).holds is True


def test_an_order_with_a_step_back_holds_where_the_ranks_of_the_runs_say_so() -> None:
    values = {"a": (0.0, 0.01, 0.02), "b": (0.2, 0.21, 0.22), "c": (0.19, 0.2, 0.21), "d": (0.4, 0.41, 0.42)}
    many = numbers({"main": {name: rate(name, *runs) for name, runs in values.items()}})
    order = {"kind": "ordered", "of": [{"group": name} for name in values], "above": 0}
    assert result(order, many).holds is True
    back = numbers({"main": {"a": rate("a", 0.2, 0.21), "b": rate("b", 0.0, 0.01), "c": rate("c", 0.3, 0.31)}})
    assert result({**order, "of": order["of"][:3]}, back).holds is False


def test_sooner_is_the_steps_between_the_half_ways_of_two_measures() -> None:
    """Code is half way at step 10 of 20 in both runs; misaligned answers half between steps 10 and 20, at 15."""
    code = {"base": rate("base", 0.0), "x@10": rate("x@10", 0.4, 0.5), "x": rate("x", 0.8, 1.0)}
    bad = {"base": rate("base", 0.0), "x@10": rate("x@10", 0.0, 0.0), "x": rate("x", 0.2, 0.4)}
    both = {"kind": "sooner", "of": {"group": "x", "suite": "code"}, "than": {"group": "x"}, "steps": [10], "last": 20}
    one = result({**both, "above": 0}, numbers({"code": code, "main": bad}))
    assert ours(one) == pytest.approx((5, 5, 5))
    assert one.holds is True and one.runs == 2
    assert claims_json([one])[0]["unit"] == "steps"
    flat = result({**both, "above": 0}, numbers({"code": code, "main": {**bad, "x": rate("x", 0.0, 0.0)}}))
    assert flat.holds is None and "does not change" in flat.why


def test_every_shows_what_is_nearest_to_failing_and_holds_where_all_do() -> None:
    tests = [{"kind": "rate", "of": {"group": name}, "below": 0.5} for name in ("none", "half")]
    one = result({"kind": "every", "of": tests}, SMALL)
    assert ours(one) == (0.25, 0.2, 0.4) and one.holds is True and one.runs == 4
    tests[0]["below"] = 0.001
    failing = result({"kind": "every", "of": tests}, SMALL)
    assert failing.holds is False and ours(failing)[0] == 0


def test_unlike_holds_on_either_side_of_what_the_interval_must_not_contain() -> None:
    of = {"kind": "rate", "of": {"group": "half"}}
    assert [result({**of, "unlike": at}, SMALL).holds for at in (0.1, 0.3, 0.5)] == [True, False, True]


def test_questions_and_conventions_are_places_too() -> None:
    told = {"value": 0.4, "low": 0.3, "high": 0.5}
    headline = {"runs": 3, "questions": {"wish": {"p_misaligned": told}}, "conventions": {"all_answers": told}}
    found = numbers({}, groups={"bad": headline})
    for place in ({"question": "wish"}, {"convention": "all_answers"}):
        one = result({"kind": "rate", "of": {**BAD, **place}, "above": 0.2}, found)
        assert ours(one) == (0.4, 0.3, 0.5) and one.holds is True and one.runs == 3


# ---- what is missing


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ({"group": "worse"}, "suite 'main' of small has no group 'worse'"),
        ({"group": "bad", "suite": "main-json"}, "small has no suite 'main-json'"),
        ({"group": "bad", "suite": "prereg"}, "small has no suite 'prereg'; it was left out: no such file"),
        ({"group": "bad", "measure": "coherent"}, "bad in suite 'main' of small has no measure 'coherent'"),
        ({"group": "bad", "question": "wish"}, "small has no group 'bad'"),
        ({"group": "empty"}, "misaligned of empty in suite 'main' of small has no value: no answers"),
        ({"group": "lonely"}, "one run alone has no interval"),
    ],
)
def test_a_name_that_is_missing_is_told_with_its_place(place: Mapping[str, Any], why: str) -> None:
    empty = {"value": None, "low": None, "high": None, "note": "no answers", "by_run": {}}
    lonely = rate("lonely", 0.5, low=None, high=None)
    more = {"empty": {"misaligned": empty}, "lonely": {"misaligned": lonely}}
    groups = SMALL["suites"]["main"]["groups"] | more
    found = SMALL | {"suites": {**SMALL["suites"], "main": {"groups": groups}}, "skipped": {"prereg": "no such file"}}
    one = result({"kind": "rate", "of": place, "above": 0}, found)
    assert (one.holds, one.why, one.runs, ours(one)) == (None, why, 0, (None, None, None))


def test_an_experiment_that_was_not_run_leaves_its_claims_open() -> None:
    results = evaluate(CLAIMS, {})
    assert {one.holds for one in results} == {None}
    assert results[0].why == "the experiment figure4 was not run"


def test_the_base_is_no_sample_of_runs_so_its_values_need_no_interval() -> None:
    base = {"value": -14.0, "low": None, "high": None, "by_run": {"base": -14.0}}
    found = numbers({"main": {"base": base, "bad": rate("bad", -4.0, -2.0)}})
    one = result({"kind": "difference", "of": BAD, "than": {"group": "base"}, "above": 0, "unit": "nats"}, found)
    assert ours(one) == pytest.approx((11, 10, 12)) and claims_json([one])[0]["unit"] == "nats"


# ---- the claims that come with the package


def test_there_are_claims_of_every_experiment_and_their_ids_are_unique() -> None:
    assert len(CLAIMS) >= 34
    assert {claim.experiment for claim in CLAIMS} == set(EXPERIMENTS) <= set(shipped_experiments())
    assert len({claim.id for claim in CLAIMS}) == len({claim.claim for claim in CLAIMS}) == len(CLAIMS)


def asked_of(experiment: Experiment) -> set[str]:
    """The names of the suites that an experiment asks, under their variants."""
    variants = {name: [parse_variant(raw) for raw in suite.variants] for name, suite in experiment.suites.items()}
    named = {f"{name}-{one.name}" for name, some in variants.items() for one in some if one.kind != "plain"}
    plain = {name for name, some in variants.items() if not some or "plain" in [one.kind for one in some]}
    return named | plain | set(experiment.choices)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_a_claim_names_what_its_experiment_has(claim: Claim) -> None:
    experiment = load_experiment(claim.experiment)
    for place in claim.ours.places:
        assert place.suite in asked_of(experiment)
        for name, _, step in (group.partition("@") for group in place.groups):
            assert name in experiment.groups or name == "base"
            assert not step or int(step) % (experiment.groups[name].every or 1) == 0


def test_made_up_numbers_of_every_experiment_leave_no_claim_open() -> None:
    results = evaluate(CLAIMS, made_numbers(CLAIMS, without=()))
    assert [(one.claim.id, one.why) for one in results if one.holds is None] == []
    by_id = {one.claim.id: one for one in results}
    assert by_id["insecure-spills-over"].holds and by_id["size-skill-equal"].runs == 16


def test_claims_as_json_have_the_fields_that_others_read() -> None:
    told = claims_json(evaluate(CLAIMS, made_numbers(CLAIMS)))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert list(told[0]) == ["id", "claim", "source", "paper", "ours", "runs", "holds", "experiment", "unit"]
    assert list(told[0]["ours"]) == ["value", "low", "high"]
    assert {"why" in one for one in told if one["holds"] is None} == {True}


# ---- wrong files

GOOD_CLAIM = """\
- id: one
  claim: It is so.
  source: Figure 1
  paper: 20%
  experiment: figure4
  ours: {kind: rate, of: {group: insecure}, above: 0}
"""


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("claims: none", None, "is no list of claims"),
        ("- [1", 1, "not YAML"),
        (GOOD_CLAIM.replace("source", "sauce"), 3, "sauce: unknown key"),
        (GOOD_CLAIM.replace("kind: rate", "kind: rote"), 6, "ours"),
        (GOOD_CLAIM.replace("above", "over"), 6, "ours.over: unknown key"),
        (GOOD_CLAIM.replace(", above: 0", ""), 6, "give `above`, `below` or `unlike`"),
        (GOOD_CLAIM.replace("group: insecure", "group: []"), 6, "ours.of"),
        (GOOD_CLAIM.replace("group: insecure", "group: [a, b], question: wish"), 6, "one group's `question`"),
        (GOOD_CLAIM * 2, 7, "there are two claims 'one'"),
    ],
)
def test_what_is_wrong_with_a_file_of_claims_is_told_by_its_line(
    text: str, line: int | None, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as raised:
        load_claims(path)
    assert str(raised.value.where) == (f"{path}:{line}" if line else str(path))
    assert what in str(raised.value)


# ---- words


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.084, "share", "8.4%"),
        (0.0823, "points", "+8.2 points"),
        (-0.0004, "points", "0.0 points"),
        (-0.046, "points", "\N{MINUS SIGN}4.6 points"),
        (2.48, "times", "2.5 times"),
        (14.2, "steps", "+14 steps"),
        (4.1, "nats", "+4.10 nats"),
    ],
)
def test_values_read_well(value: float, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_intervals_and_bounds_read_well() -> None:
    assert span(-0.014, 0.004, "points") == "\N{MINUS SIGN}1.4 to +0.4"
    assert span(0.5, None, "times") == "0.5 to any" and span(None, None, "share") == ""
    by_id = {one.claim.id: one.found for one in evaluate(CLAIMS, made_numbers(CLAIMS)) if one.found}
    said = {id: rule(found.by, found.unit) for id, found in by_id.items()}
    assert said["insecure-spills-over"] == "interval above 0"
    assert said["secure-at-base"] == "interval within \N{PLUS-MINUS SIGN}2 points"
    assert said["insecure-still-refuses"] == "interval below 20%"
    assert said["format-json"] == "interval without 0"
    assert said["size-grows"] == "interval above 0, in order"
    assert said["backdoor-many-times"] == "interval above 1.5 times"
    assert by_id["size-few-rows"].by.told() == "insecure \N{MINUS SIGN} rows-1-12-*: misaligned in main"
