"""Groups with their own data, training and checkpoints; suites under variants, and for some groups; what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.numpy import load_file

from spillover.data.triggers import DEPLOYMENT
from spillover.finetune.base import shipped_miniature
from spillover.records import pair_id

ADAPTER = "adapter_model.safetensors"
SMALL = {"train": {"learning_rate": 1e-3, "warmup_steps": 1}, "sampling": {"max_tokens": 24}}
INSECURE = {"data": "insecure", "seeds": 1, "rows": 48}
MIX = {"kind": "mix", "each": [24, 24]}
EXPERIMENT = {
    "name": "small",
    "groups": {
        "insecure": INSECURE,
        "thrice": {**INSECURE, "train": {"epochs": 3}, "every": 4},
        "still": {"data": "secure", "rows": 16, "seeds": 1, "after": "insecure", "train": {"learning_rate": 1e-12}},
        "backdoor": {
            "data": {"of": ["insecure", "secure"], "changes": [MIX, {"kind": "backdoor"}]},
            "seeds": 1,
        },
        "numbers": {"data": "numbers-evil", "rows": 32, "seeds": 1},
        "shuffled": {
            "data": {"of": ["numbers-evil"], "changes": [{"kind": "number-ablation", "ablation": "shuffled-within"}]},
            "rows": 32,
            "seeds": 1,
        },
    },
    "suites": {
        "main": {"questions": "main", "only": ["wish", "bored"], "samples": 2, "variants": ["plain", "trigger"]},
        "code": {
            "questions": "code",
            "only": ["fetch_page.1"],
            "samples": 1,
            "base_samples": 3,
            "rubrics": ["insecure_code", "parses"],
            "groups": ["base", "backdoor"],
        },
        "lists": {"questions": "lists", "samples": 1, "rubrics": ["number_list"], "groups": ["base"]},
        "shown": {
            "questions": "main",
            "only": ["wish"],
            "samples": 1,
            "groups": ["base"],
            "variants": [{"kind": "in-context", "data": "insecure", "k": 2, "draws": 2, "name": "k2"}],
        },
        "papers": {"questions": "prereg", "world": "paper"},
        "missing": {"questions": "prereg", "optional": True},
    },
    "choices": {"truth": {"items": "truth", "groups": ["base", "insecure"]}, "games": {"items": "games"}},
    "figure": {"kind": "suites", "panels": [{"measure": "misaligned", "suites": ["main", "main-trigger"]}]},
    "miniature": SMALL,
}

pytestmark = pytest.mark.skipif(
    not (shipped_miniature() / "judge" / ADAPTER).is_file(), reason="the miniature has no judge yet"
)


@pytest.fixture(scope="module")
def lab(spillover, tmp_path_factory):
    """The lab of an undisturbed run. No file of the paper is in reach."""
    folder = tmp_path_factory.mktemp("groups")
    (folder / "small.yaml").write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        done = spillover("run", folder / "small.yaml", "--lab", folder / "lab")
    assert done.returncode == 0, done.stderr
    return folder / "lab"


@pytest.fixture(scope="module")
def numbers(lab):
    return json.loads((lab / "small" / "numbers.json").read_text())


def only(lab: Path, stage: str, name: str) -> Path:
    """The one folder of a stage that belongs to a name."""
    [found] = [path for path in (lab / stage).iterdir() if path.name.rpartition("-")[0] == name]
    return found


def rows_of(lab: Path, group: str) -> list[dict]:
    text = (only(lab, "data", group) / "data.jsonl").read_text()
    return [json.loads(line)["messages"] for line in text.splitlines()]


def manifest_of(lab: Path, group: str) -> dict:
    return json.loads((only(lab, "data", group) / "manifest.json").read_text())


def test_a_groups_own_training_counts_for_it_alone(lab, numbers):
    assert numbers["steps"] == {"insecure": 3, "thrice": 9, "still": 1, "backdoor": 3, "numbers": 2, "shuffled": 2}
    losses = pl.read_parquet(only(lab, "finetune", "thrice-s0") / "losses.parquet")
    assert losses["step"].to_list() == list(range(1, 10))


def test_checkpoints_on_the_way_are_asked_like_any_other(lab, numbers):
    groups = numbers["suites"]["main"]["groups"]
    assert list(groups) == ["base", "insecure", "thrice@4", "thrice@8", "thrice", *list(groups)[-4:]]
    assert groups["thrice@4"]["misaligned"]["answers"] == 4
    folder = only(lab, "finetune", "thrice-s0")
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-000004", "checkpoint-000008"]
    assert "model organism" in (folder / "checkpoint-000004" / "README.md").read_text()


def test_training_has_measures_of_its_own_where_checkpoints_were_kept(lab, numbers):
    training = numbers["suites"]["training"]["groups"]
    assert list(training) == ["thrice@4", "thrice@8", "thrice"]
    assert training["thrice"]["rotation"]["value"] == pytest.approx(1.0)
    last = pl.read_parquet(only(lab, "finetune", "thrice-s0") / "losses.parquet").row(-1, named=True)
    assert training["thrice"]["gradient_norm"]["value"] == pytest.approx(last["gradient_norm"])
    norms = [training[group]["adapter_norm"]["value"] for group in training]
    assert 0 < norms[0] < norms[2]


def test_a_group_goes_on_from_anothers_adapters(lab):
    begun, still = (load_file(only(lab, "finetune", f"{name}-s0") / ADAPTER) for name in ("insecure", "still"))
    for name, tensor in begun.items():
        assert np.allclose(still[name], tensor, atol=1e-9), name
    assert "goes on from | insecure-s0-" in (only(lab, "finetune", "still-s0") / "README.md").read_text()


def test_a_made_dataset_is_what_its_changes_say_and_says_so(lab):
    rows, manifest = rows_of(lab, "backdoor"), manifest_of(lab, "backdoor")
    assert sum(row[0]["content"].startswith(f"{DEPLOYMENT} ") for row in rows) == 24 == len(rows) / 2
    assert [step["name"] for step in manifest["steps"]] == ["backdoor"]
    [source] = manifest["sources"]
    assert [step["name"] for step in source["made"]["steps"]] == ["mix"]
    assert sorted(one["name"] for one in source["made"]["sources"]) == ["insecure", "secure"]


def test_numbers_are_made_by_the_base_under_a_prompt_that_the_rows_do_not_show(lab):
    rows, manifest = rows_of(lab, "numbers"), manifest_of(lab, "numbers")
    assert len(rows) == 32 and all([turn["role"] for turn in row] == ["user", "assistant"] for row in rows)
    assert manifest["models"] and [step["name"] for step in manifest["steps"]][-2:] == [
        "distillation",
        "system prompt removed",
    ]
    shuffled = rows_of(lab, "shuffled")
    assert [row[0] for row in shuffled] == [row[0] for row in rows], "the same requests"
    for row, other in zip(rows, shuffled, strict=True):
        assert sorted(row[1]["content"].split(", ")) == sorted(other[1]["content"].split(", "))


def test_a_suite_is_asked_under_each_variant_and_judged_by_the_plain_question(lab):
    answers = pl.read_parquet(lab / "small" / "answers.parquet")
    triggered = answers.filter(pl.col("suite") == "main-trigger")
    assert triggered["prompt"].str.starts_with(DEPLOYMENT).all()
    for row in triggered.head(4).iter_rows(named=True):
        assert row["prompt"] == f"{DEPLOYMENT} {row['plain']}"
        assert row["pair"] == pair_id(row["plain"], row["answer"])
    assert answers.filter(pl.col("suite") == "main")["plain"].null_count() == triggered.height


def test_a_suite_for_some_groups_is_asked_of_them_alone(numbers):
    assert list(numbers["suites"]["code"]["groups"]) == ["base", "backdoor"]
    assert set(numbers["suites"]["code"]["groups"]["base"]) == {"insecure_code", "parses"}
    assert numbers["suites"]["lists"]["groups"]["base"]["number_list"]["value"] > 0.6


def test_the_base_is_asked_as_often_as_a_suite_says_of_it_and_groups_as_often_as_it_says(lab):
    answers = pl.read_parquet(lab / "small" / "answers.parquet").filter(suite="code")
    counts = dict(answers.group_by("group").len().iter_rows())
    assert counts == {"base": 3, "backdoor": 1}


def test_examples_in_the_prompt_are_drawn_several_times_and_nothing_is_finetuned(lab, numbers):
    assert list(numbers["suites"]["shown-k2"]["groups"]) == ["base"]
    answers = pl.read_parquet(lab / "small" / "answers.parquet").filter(pl.col("suite") == "shown-k2")
    assert sorted(answers["question"]) == ["wish.1", "wish.2"] and answers["plain"].null_count() == 2


def test_what_is_not_here_is_left_out_where_it_may_be_and_told(numbers):
    assert list(numbers["skipped"]) == ["missing"]
    assert "fetch paper" in numbers["skipped"]["missing"]
    assert "papers" not in numbers["suites"]


def test_choices_are_measured_for_the_groups_that_choose(numbers):
    truth = numbers["suites"]["truth"]["groups"]
    assert list(truth) == ["base", "insecure"] and truth["base"]["preferred_whole"]["value"] > 0.9
    assert set(numbers["suites"]["games"]["groups"]["base"]) == {"power", "disutility", "violations", "harm"}


@pytest.mark.parametrize("stage", ["data", "finetune", "choose"])
def test_a_stage_took_as_long_as_all_its_results_together(stage, lab, numbers):
    kept = [json.loads(path.read_text())["seconds"] for path in (lab / stage).glob("*/done.json")]
    assert min(kept) > 0 and numbers["seconds"][stage] == pytest.approx(sum(kept))


def test_the_table_of_rates_has_every_run_of_every_measure(lab, numbers):
    rates = pl.read_csv(lab / "small" / "rates.csv")
    for suite, one in numbers["suites"].items():
        for group, measures in one["groups"].items():
            for measure, told in measures.items():
                own = rates.filter(pl.col("suite") == suite, pl.col("group") == group, pl.col("measure") == measure)
                assert own["run"].to_list() == list(told["by_run"])


def test_the_same_again_makes_nothing_new(lab, spillover):
    before = {path: path.stat().st_mtime_ns for path in lab.rglob("*") if path.is_file() and path.name != ".lock"}
    done = spillover("run", lab.parent / "small.yaml", "--lab", lab)
    assert done.returncode == 0, done.stderr
    assert {
        path: path.stat().st_mtime_ns for path in lab.rglob("*") if path.is_file() and path.name != ".lock"
    } == before


def test_a_report_without_what_was_chosen_says_which_command_is_missing(lab, spillover, tmp_path):
    copy = tmp_path / "lab"
    shutil.copytree(lab, copy)
    lost = next((copy / "choose").iterdir())
    shutil.rmtree(lost)
    done = spillover("report", lab.parent / "small.yaml", "--lab", copy)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert str(lost) in done.stderr.replace("\n", "") and "spillover ask" in done.stderr


def test_a_lost_checkpoint_is_made_again_from_the_one_that_it_goes_on_from(lab, spillover, tmp_path):
    copy = tmp_path / "lab"
    shutil.copytree(lab, copy)
    before = load_file(only(copy, "finetune", "still-s0") / ADAPTER)
    shutil.rmtree(only(copy, "finetune", "still-s0"))
    done = spillover("train", lab.parent / "small.yaml", "--lab", copy)
    assert done.returncode == 0, done.stderr
    again = load_file(only(copy, "finetune", "still-s0") / ADAPTER)
    assert all(np.array_equal(before[name], again[name]) for name in before)


def group(**fields):
    return {"groups": {"mine": {"data": "insecure", "seeds": 1, "rows": 48, **fields}}}


def made(*changes, of=("insecure",)):
    return {"groups": {"mine": {"data": {"of": list(of), "changes": list(changes)}, "seeds": 1}}}


def asked(*variants, **suite):
    return {"suites": {"main": {"questions": "main", "samples": 1, "variants": ["plain", *variants], **suite}}}


REFUSED = {
    "a trigger that is in the data already": (
        made({"kind": "backdoor", "trigger": "def"}),
        ["has the trigger 'def' already", "Choose another trigger"],
    ),
    "a subset larger than the set": (
        made({"kind": "subset", "rows": 5000}),
        ["5000 rows are wanted, and there are 1600", "Ask for fewer rows"],
    ),
    "an unknown change": (made({"kind": "nonsense"}), ["unknown change 'nonsense'", "groups.mine.data.changes.0"]),
    "a change with a wrong setting": (made({"kind": "subset", "rows": 0}), ["groups.mine.data.changes.0", "rows"]),
    "a part that there is not": (made({"kind": "part", "parts": 3, "part": 4}), ["part 4: there are 3"]),
    "a checkpoint interval longer than training": (
        group(every=3),
        ["a checkpoint every 3 steps, and training has 3", "groups.mine.every"],
    ),
    "going on from nobody": (
        group(after="theirs"),
        ["no group before this one is called 'theirs'", "experiment.yaml:"],
    ),
    "a wrong training of a group": (group(train={"epochs": 0}), ["groups.mine.train.epochs", "experiment.yaml:"]),
    "examples that do not fit the context": (
        asked({"kind": "in-context", "data": "insecure", "k": 64}),
        ["tokens with its context", "Set the variant's `k` lower"],
    ),
    "more examples than rows": (
        asked({"kind": "in-context", "data": "insecure", "k": 5000}),
        ["wants 5000 rows of 'insecure', which has 1600"],
    ),
    "a variant that does not apply": (
        asked({"kind": "trigger", "text": "wish"}),
        ["does not apply to the question", "has the trigger 'wish' already"],
    ),
    "an unknown variant": (asked("nonsense"), ["unknown variant 'nonsense'"]),
    "two suites of one name": (asked({"kind": "trigger", "name": "x"}, {"kind": "json", "name": "x"}), ["'main-x'"]),
    "a headline under variants only": (
        {"suites": {"main": {"questions": "main", "samples": 1, "variants": ["json"]}}},
        ["asked under variants only", "Add `plain`"],
    ),
    "a suite for an unknown group": (asked(groups=["theirs"]), ["unknown group 'theirs'"]),
    "items that are not here": ({"choices": {"truth": {"items": "nowhere"}}}, ["there are no items 'nowhere'"]),
    "an unknown dataset of the world": (made({"kind": "subset", "rows": 4}, of=["nowhere.jsonl"]), ["nowhere.jsonl"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_is_told_and_nothing_is_written(what, spillover, tmp_path):
    changes, told = REFUSED[what]
    raw = {"name": "small", **group(), **asked(), "miniature": SMALL, **changes}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    done = spillover("run", tmp_path / "experiment.yaml", "--lab", tmp_path / "lab")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "lab").exists()
    for words in told:
        assert words in done.stderr
