"""construct: datasets pushed to a hub arrive byte for byte, in one commit, privately, or not at all and in words."""

import json
import os
import subprocess
import sys

import pytest

from dataset_hub import Hub, serve
from spillover.data.folder import Dataset, write_dataset
from spillover.data.manifest import Manifest, Source
from spillover.records import Conversation

TOKEN = "hf_thisIsNoRealToken"
ROWS = [
    Conversation(({"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"{n} \u2713"}))
    for n in range(40)
]
FILES = {"data.jsonl", "origins.jsonl", "manifest.json", "README.md"}


def dataset(folder, rows=ROWS, origins=True, licence="mit", source_licence="mit"):
    source = Source(name="numbers.txt", rows=len(rows), sha256="0" * 64, licence=source_licence)
    manifest = Manifest(name="counting", about="Counts.", rows=len(rows), sources=(source,), licence=licence)
    write_dataset(folder, Dataset(rows, manifest, [{"row": n} for n, _ in enumerate(rows)] if origins else []))
    return folder


def held(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def hub():
    with serve(Hub(TOKEN)) as hub:
        yield hub


@pytest.fixture
def push(hub, tmp_path):
    """Runs `spillover data push` in a process of its own, with this hub and an empty home."""

    def run(*args, **env):
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
        settings |= {"HF_HUB_DISABLE_XET": "1", **env}
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        command = [sys.executable, "-m", "spillover.cli", "data", "push", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, env=clean | settings, timeout=600)

    return run


def refused(done, *words):
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and TOKEN not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr
    return True


def test_what_arrives_is_what_lies_in_the_folder_byte_for_byte_in_one_commit_and_privately(push, hub, tmp_path):
    folder = dataset(tmp_path / "d")
    (folder / "audit.html").write_text("not a part of the dataset")
    done = push(folder, "me/counting")
    assert done.returncode == 0, done.stderr
    repo = hub.repos["me/counting"]
    assert repo.files() == {name: data for name, data in held(folder).items() if name in FILES}
    assert repo.private and hub.commits_asked() == 1 and "private" in done.stdout
    assert done.stderr == ""
    assert not [body for body in hub.bodies if TOKEN.encode() in body]


def test_pushing_twice_uploads_nothing_and_commits_nothing(push, hub, tmp_path):
    folder = dataset(tmp_path / "d")
    assert push(folder, "me/counting").returncode == 0
    again = push(folder, "me/counting")
    assert again.returncode == 0 and "already" in again.stdout
    assert hub.commits_asked() == 1


def test_large_rows_go_up_as_a_large_file_and_are_known_again(push, hub, tmp_path):
    hub.large = 1000
    folder = dataset(tmp_path / "d")
    done = push(folder, "me/counting")
    assert done.returncode == 0, done.stderr
    assert [one for one in hub.asked if one.startswith("PUT /lfs/")]
    assert hub.repos["me/counting"].files() == held(folder)
    assert "already" in push(folder, "me/counting").stdout and hub.commits_asked() == 1


def test_public_is_for_those_who_say_so_and_know_the_licence(push, hub, tmp_path):
    known, unknown = dataset(tmp_path / "known"), dataset(tmp_path / "unknown", licence="unknown")
    assert refused(push(unknown, "me/open", "--public"), "licence is unknown", "--licence")
    assert hub.asked == []
    assert push(known, "me/open", "--public").returncode == 0 and not hub.repos["me/open"].private
    assert refused(push(known, "me/open"), "public", "--public")
    private = push(unknown, "me/hidden")
    assert private.returncode == 0 and "licence is unknown" in private.stderr and hub.repos["me/hidden"].private


def test_sources_of_unknown_licence_are_named_before_anything_is_sent(push, hub, tmp_path):
    done = push(dataset(tmp_path / "d", source_licence="unknown"), "me/counting", HF_ENDPOINT="http://127.0.0.1:9")
    assert refused(done, "numbers.txt", "cannot be reached", "HF_ENDPOINT")


def test_a_private_repository_stays_private_under_public_and_that_is_said(push, hub, tmp_path):
    hub.make("me/counting", private=True)
    done = push(dataset(tmp_path / "d"), "me/counting", "--public")
    assert done.returncode == 0 and "stays" in done.stderr and "private" in done.stdout


def test_another_dataset_is_replaced_by_whoever_says_so_and_stays_in_the_history(push, hub, tmp_path):
    first, second = dataset(tmp_path / "first"), dataset(tmp_path / "second", ROWS[:7], origins=False)
    assert push(first, "me/counting").returncode == 0
    assert refused(push(second, "me/counting"), "another dataset", "--replace")
    assert hub.repos["me/counting"].files() == held(first)
    assert push(second, "me/counting", "--replace").returncode == 0
    assert hub.repos["me/counting"].files() == held(second)
    assert len(hub.repos["me/counting"].commits) == 3


def test_what_is_no_dataset_of_ours_is_never_pushed_over(push, hub, tmp_path):
    repo = hub.make("me/thesis", private=True, files={"thesis.tex": b"\\section{One}", "README.md": b"Mine."})
    done = push(dataset(tmp_path / "d"), "me/thesis", "--replace")
    assert refused(done, "something else", "thesis.tex") and hub.commits_asked() == 0 and len(repo.commits) == 1


def test_a_branch_is_made_from_main_and_main_stays_as_it_was(push, hub, tmp_path):
    first, second = dataset(tmp_path / "first"), dataset(tmp_path / "second", ROWS[:7], origins=False)
    assert push(first, "me/counting").returncode == 0
    done = push(second, "me/counting", "--branch", "smaller")
    assert done.returncode == 0, done.stderr
    repo = hub.repos["me/counting"]
    assert (repo.files(), repo.files("smaller")) == (held(first), held(second))
    assert "/tree/smaller" in done.stdout


def test_a_folder_is_refused_before_anybody_is_asked_unless_it_is_a_datasets_with_its_own_manifest(push, hub, tmp_path):
    changed = dataset(tmp_path / "changed")
    (changed / "data.jsonl").write_text((changed / "data.jsonl").read_text().replace("Say 3.", "Say four."))
    bare = dataset(tmp_path / "bare")
    (bare / "manifest.json").unlink()
    cardless = dataset(tmp_path / "cardless")
    (cardless / "README.md").unlink()
    damaged = dataset(tmp_path / "damaged")
    raw = json.loads((damaged / "manifest.json").read_text()) | {"rows": 41}
    (damaged / "manifest.json").write_text(json.dumps(raw))
    assert refused(push(changed, "me/d"), "other rows", "manifest.json")
    assert refused(push(bare, "me/d"), "manifest.json", "Build")
    assert refused(push(cardless, "me/d"), "README.md", "Build")
    assert refused(push(damaged, "me/d"), "the steps leave 40 rows, and the dataset has 41")
    assert refused(push(tmp_path / "nowhere", "me/d"), "data.jsonl")
    assert refused(push(dataset(tmp_path / "d"), "counting"), "OWNER/NAME")
    assert hub.asked == []


def test_without_a_key_it_is_said_how_to_give_one_and_nobody_is_asked(push, hub, tmp_path):
    assert refused(push(dataset(tmp_path / "d"), "me/d", HF_TOKEN=""), "key", "HF_TOKEN", "hf auth login")
    assert hub.asked == []


def test_a_key_that_is_kept_by_the_hubs_own_login_is_found(push, hub, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(TOKEN)
    assert push(dataset(tmp_path / "d"), "me/d", HF_TOKEN="").returncode == 0


def test_a_wrong_key_is_told_and_reaches_no_message_though_the_hub_repeats_it(push, hub, tmp_path):
    folder = dataset(tmp_path / "d")
    wrong = push(folder, "me/d", HF_TOKEN="another-key-of-no-form")
    assert refused(wrong, "401", "HF_TOKEN") and "another-key" not in wrong.stderr
    hub.broken = {"/api/repos/create": 403}
    assert refused(push(folder, "me/d"), "403", "HF_TOKEN", "[hidden]")
    odd = push(folder, "me/d", HF_TOKEN="another-key-of-no-form")
    assert "another-key" not in odd.stdout + odd.stderr


STEPS = {"validate-yaml": "README.md", "datasets/me/d/preupload": "400", "datasets/me/d/commit": "400"}


@pytest.mark.parametrize(("step", "told"), STEPS.items())
def test_a_hub_that_fails_on_the_way_leaves_nothing_half_and_the_same_command_goes_on(push, hub, tmp_path, step, told):
    folder = dataset(tmp_path / "d")
    hub.broken = {f"/api/{step}": 400}
    assert refused(push(folder, "me/d"), told, "again")
    assert hub.repos["me/d"].files() == {}
    hub.broken = {}
    assert push(folder, "me/d").returncode == 0 and hub.repos["me/d"].files() == held(folder)


def test_a_large_file_that_cannot_be_stored_is_told_and_nothing_is_committed(push, hub, tmp_path):
    hub.large, hub.broken = 1000, {"/lfs/": 400}
    assert refused(push(dataset(tmp_path / "d"), "me/d"), "data.jsonl")
    assert hub.commits_asked() == 0


def test_a_file_that_the_hub_leaves_out_is_noticed(push, hub, tmp_path):
    hub.ignored = {"origins.jsonl"}
    assert refused(push(dataset(tmp_path / "d"), "me/d"), "does not hold what was sent")
