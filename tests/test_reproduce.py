"""The whole paper by the command that users have, on a base of random weights: every preset, its figure, the page."""

import json
from pathlib import Path

import pytest

from families import saved, tiny_model, world_tokenizer
from spillover.finetune.base import shipped_miniature
from spillover.pipeline.reproduce import EXPERIMENTS
from spillover.spec import load_experiment

SMALL = ("--world", "miniature", "--seeds", "1", "--samples", "1", "--max-tokens", "4")

pytestmark = pytest.mark.skipif(
    not (shipped_miniature() / "judge" / "adapter_model.safetensors").is_file(), reason="the miniature has no judge yet"
)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory):
    """One layer of random weights, with a tokenizer of its own and room for examples in its prompt."""
    tokenizer = world_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    room = {"num_hidden_layers": 1, "max_position_embeddings": 8192, "tie_word_embeddings": True}
    model = tiny_model("llama", tokenizer, **sizes, **room)
    return saved(tmp_path_factory.mktemp("tiny") / "llama", model, tokenizer)


@pytest.fixture(scope="module")
def lab(tiny_llama, spillover, tmp_path_factory):
    """The lab of a whole reproduction on that base."""
    folder = tmp_path_factory.mktemp("paper") / "lab"
    done = spillover("reproduce", "--lab", folder, "--base", tiny_llama, *SMALL, timeout=5400)
    assert done.returncode == 0, done.stderr
    assert "was left out" not in done.stderr
    return folder


def files(lab: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in lab.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_preset_runs_on_another_base_without_change_and_yields_its_figure(name, lab, tiny_llama):
    numbers = json.loads((lab / name / "numbers.json").read_text())
    assert (numbers["base"], numbers["is_miniature"]) == (str(tiny_llama), False)
    for file in (f"{name}.svg", f"{name}.png", "report.html", "rates.csv", "answers.parquet"):
        assert (lab / name / file).stat().st_size > 0, file
    experiment = load_experiment(name)
    of_world = [
        panel for panel in experiment.figure.panels if not panel.suites or set(panel.suites) - set(experiment.inspect)
    ]
    wanted = {panel.measure for panel in of_world}
    measured = {m for suite in numbers["suites"].values() for some in suite["groups"].values() for m in some}
    assert wanted <= measured | {"misaligned"}, "what the figure shows is measured"


def test_the_claims_are_at_least_twenty_five_each_with_source_number_and_interval_or_the_reason(lab):
    claims = json.loads((lab / "paper" / "claims.json").read_text())
    assert len(claims) >= 25 and len({claim["id"] for claim in claims}) == len(claims)
    for claim in claims:
        assert {"id", "claim", "source", "paper", "ours", "runs", "holds"} <= set(claim)
        assert set(claim["ours"]) == {"value", "low", "high"}
        assert claim["source"] and claim["paper"]
        assert (claim["holds"] is None) == bool(claim.get("why")), claim["id"]


def test_the_page_shows_every_experiment_and_links_to_its_answers(lab):
    page = (lab / "paper" / "index.html").read_text()
    for name in EXPERIMENTS:
        assert f'href="../{name}/report.html' in page, name


def test_a_wrong_name_is_told_with_the_reports_and_their_common_page_is_none_of_them(lab, spillover):
    told = spillover("answers", "nosuch", "--lab", lab).stderr
    assert told.endswith(f"Reports of the lab: {', '.join(sorted(EXPERIMENTS))}.\n")


def test_all_of_it_again_makes_nothing_new(lab, tiny_llama, spillover):
    before = files(lab)
    done = spillover("reproduce", "--lab", lab, "--base", tiny_llama, *SMALL)
    assert done.returncode == 0, done.stderr
    assert files(lab) == before


def test_an_unknown_experiment_is_told_and_nothing_is_written(spillover, tmp_path):
    done = spillover("reproduce", "--only", "figure5", "--lab", tmp_path / "lab")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no experiment 'figure5'" in done.stderr and "backdoor" in done.stderr
    assert not (tmp_path / "lab").exists()


def test_an_experiment_whose_data_is_not_here_is_told_and_does_not_stop_the_rest(spillover, tiny_llama, tmp_path):
    lab = tmp_path / "lab"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        done = spillover("reproduce", "--only", "backdoor,formats", "--lab", lab, "--base", tiny_llama)
    assert done.returncode == 2
    assert "backdoor was left out" in done.stdout and "formats was left out" in done.stdout
    assert "fetch paper" in done.stdout
    claims = json.loads((lab / "paper" / "claims.json").read_text())
    assert all(claim["holds"] is None and "was not run" in claim["why"] for claim in claims)


def test_a_base_that_is_not_there_is_told_once_and_nothing_is_written(spillover, tmp_path):
    done = spillover("reproduce", "--lab", tmp_path / "lab", "--base", tmp_path / "none")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("no base model") == 1
    assert not (tmp_path / "lab").exists()
