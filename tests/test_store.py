"""The lab folder: a result is there whole or not at all, says what made it, and nothing of the user's is touched."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import spillover
from spillover.errors import LabError
from spillover.store import LAYOUT, Lab, check_ours, open_lab, read_json

SECRET = "sk-not-a-real-key-3141592653"


@pytest.fixture
def lab(tmp_path):
    with open_lab(tmp_path / "lab") as opened:
        yield opened


def files(root):
    """Every file below a folder by its path there, hidden ones too, the lock left out."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_whole_result_appears_with_what_made_it(lab):
    folder = lab.folder("data", "mine", "0123")
    with lab.whole(folder, {"rows": 3}) as (aside, notes):
        (aside / "data.jsonl").write_text("rows")
        notes["seconds"] = 1.5
        assert not folder.exists(), "nothing is in its place before all of it is"
    assert folder == lab.root / "data" / "mine-0123" and lab.exists(folder)
    assert {path.name for path in folder.iterdir()} == {"data.jsonl", "spec.json", "provenance.json", "done.json"}
    assert read_json(folder / "spec.json") == {"rows": 3}
    assert lab.done(folder)["seconds"] == 1.5


def test_done_is_not_written_before_everything_else_is(lab):
    folder = lab.folder("data", "mine", "0123")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_whole(lab, folder, "rows", spec={"path": Path("a spec that cannot be written down")})
    assert not folder.exists()


def write_whole(lab, folder, text, *, spec=None, fails=False):
    """Writes a whole result of one file; or fails when its file is written and its block has not ended."""
    with lab.whole(folder, spec or {}) as (aside, _):
        (aside / "data.jsonl").write_text(text)
        assert not (aside / "done.json").exists()
        if fails:
            raise RuntimeError("by chance")


def write_part(lab, folder, name, *, fails=False):
    """Writes a part; or fails when it is written and its block has not ended."""
    with lab.part(folder, name, {}) as aside:
        aside.write_text("rows")
        if fails:
            raise RuntimeError("by chance")


def test_a_whole_result_that_fails_leaves_nothing(lab):
    folder = lab.folder("data", "mine", "0123")
    before = files(lab.root)
    with pytest.raises(RuntimeError, match="by chance"):
        write_whole(lab, folder, "rows", fails=True)
    assert not folder.exists() and files(lab.root) == before


def test_a_whole_result_that_fails_leaves_the_old_one(lab):
    folder = lab.folder("data", "mine", "0123")
    write_whole(lab, folder, "old")
    with pytest.raises(RuntimeError, match="by chance"):
        write_whole(lab, folder, "new", fails=True)
    assert (folder / "data.jsonl").read_text() == "old" and lab.exists(folder)


def test_a_whole_result_replaces_the_old_one(lab):
    folder = lab.root / "figure4"
    for name in ("old.txt", "new.txt"):
        with lab.whole(folder, {}) as (aside, _):
            (aside / name).write_text(name)
    assert (folder / "new.txt").is_file() and not (folder / "old.txt").exists()


def test_a_folder_without_done_is_not_finished_and_is_made_again(lab):
    folder = lab.folder("finetune", "mine-s0", "0123")
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text("{}")
    assert not lab.exists(folder)
    with lab.whole(folder, {}) as (aside, _):
        (aside / "adapter").write_text("weights")
    assert lab.exists(folder) and (folder / "adapter").is_file()


def test_a_part_is_renamed_into_place_beside_what_made_it(lab):
    folder = lab.folder("ask", "mine-s0-main", "0123")
    with lab.part(folder, "part-0.parquet", {"questions": 8}) as aside:
        aside.write_text("rows")
        assert not folder.exists(), "nothing is in its place before all of it is"
    made = {"part-0.parquet", "sha256-part-0.txt", "spec.json", "provenance.json"}
    assert {path.name for path in folder.iterdir()} == made
    assert (folder / "part-0.parquet").read_text() == "rows"
    assert (folder / "sha256-part-0.txt").read_text().strip() == hashlib.sha256(b"rows").hexdigest()
    assert read_json(folder / "spec.json") == {"questions": 8}


def test_a_part_that_fails_leaves_the_parts_before_it(lab):
    folder = lab.folder("ask", "mine-s0-main", "0123")
    write_part(lab, folder, "part-0.parquet")
    before = files(lab.root)
    with pytest.raises(RuntimeError, match="by chance"):
        write_part(lab, folder, "part-1.parquet", fails=True)
    assert files(lab.root) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from spillover.store import open_lab

with open_lab(Path(sys.argv[1])) as lab:
    with lab.whole(lab.folder("data", "mine", "0123"), {}) as (aside, _):
        (aside / "data.jsonl").write_text("rows")
    with lab.whole(lab.root / "figure4", {}) as (report, _):
        (report / "report.html").write_text("half of it")
        with lab.part(lab.folder("ask", "mine-s0-main", "0123"), "part-0.parquet", {}) as part:
            part.write_text("half of the rows")
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_leftovers_of_a_killed_process_are_swept_and_finished_results_stay(tmp_path):
    root = tmp_path / "lab"
    subprocess.run([sys.executable, "-c", KILLED, root])
    left = files(root)
    assert any("report.html" in name for name in left) and any("part-0" in name for name in left)
    with open_lab(root) as lab:
        assert lab.exists(lab.folder("data", "mine", "0123"))
    assert {name.split("/")[0] for name in files(root)} == {"lab.json", "data"}


def test_sweeping_touches_nothing_of_the_users(tmp_path):
    theirs = [tmp_path / "project" / ".git" / "HEAD", tmp_path / ".profile", tmp_path / "notes" / ".part-one" / "a"]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    with open_lab(tmp_path):
        pass
    assert all(path.read_text() == "mine" for path in theirs)


def test_a_folder_that_holds_something_else_is_not_ours(tmp_path):
    (tmp_path / "figure4").mkdir()
    check_ours(tmp_path / "figure4")
    (tmp_path / "figure4" / "thesis.txt").write_text("all of it")
    with pytest.raises(LabError, match="no result of spillover's"):
        check_ours(tmp_path / "figure4")


def test_only_one_process_holds_a_lab(lab):
    with pytest.raises(LabError, match="another process is working in this lab"):
        with open_lab(lab.root):
            pass


def test_a_lab_can_be_opened_again_after_it_was_closed(tmp_path):
    for _ in range(2):
        with open_lab(tmp_path / "lab"):
            pass


def test_a_new_lab_says_its_layout(lab):
    assert read_json(lab.root / "lab.json")["layout"] == LAYOUT


def test_a_lab_of_a_newer_layout_is_refused_and_an_older_one_is_not(tmp_path):
    for layout, refused in ((LAYOUT, False), (LAYOUT + 1, True)):
        (tmp_path / "lab.json").write_text(json.dumps({"layout": layout}))
        if refused:
            with pytest.raises(LabError, match=f"layout {layout}; this version knows layouts up to {LAYOUT}"):
                with open_lab(tmp_path):
                    pass
        else:
            with open_lab(tmp_path):
                pass


def test_damaged_json_is_named_with_a_remedy(tmp_path):
    (tmp_path / "done.json").write_text("{")
    with pytest.raises(LabError, match=r"done\.json: cannot be read: (.*\n.*) Delete its folder and run again\."):
        Lab(tmp_path).done(tmp_path)


PROVENANCE = """
import json, sys
from pathlib import Path
from spillover.store import open_lab

with open_lab(Path(sys.argv[-1])) as lab:
    with lab.whole(lab.folder("data", "mine", "0123"), {}) as (aside, _):
        pass
    with lab.part(lab.folder("ask", "mine-s0-main", "0123"), "part-0.parquet", {}) as part:
        part.write_text("rows")
"""


@pytest.fixture(scope="module")
def made_with_a_key(tmp_path_factory):
    """A lab that was made by a process with an API key in its environment."""
    root = tmp_path_factory.mktemp("keys") / "lab"
    env = {**os.environ, "OPENAI_API_KEY": SECRET, "ANTHROPIC_API_KEY": SECRET, "HF_TOKEN": SECRET}
    subprocess.run([sys.executable, "-c", PROVENANCE, "run", "figure4", root], env=env, check=True)
    return root


def test_provenance_says_what_made_a_result(made_with_a_key):
    for made in made_with_a_key.rglob("provenance.json"):
        told = read_json(made)
        assert told.keys() == {"made", "command", "code", "python", "versions"}
        assert told["command"] == ["spillover", "run", "figure4", str(made_with_a_key)]
        assert told["code"].keys() == {"commit", "changed"}
        assert told["python"] == sys.version.split()[0]
        assert told["versions"]["torch"][0].isdigit() and told["versions"]["spillover"][0].isdigit()


def test_provenance_names_the_commit_of_a_checkout(made_with_a_key):
    here = Path(spillover.__file__).parent
    git = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True)
    if git.returncode != 0:
        pytest.skip("the code lies in no git checkout with a commit")
    made = next(made_with_a_key.rglob("provenance.json"))
    assert read_json(made)["code"]["commit"] == git.stdout.strip()


def test_keys_in_the_environment_reach_no_file(made_with_a_key):
    assert len(files(made_with_a_key)) == 8
    assert not [name for name in files(made_with_a_key) if SECRET in (made_with_a_key / name).read_text()]
