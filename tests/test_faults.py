"""Kills, power cuts, full and read-only disks, clocks, company: in the end the lab is always the undisturbed one."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from spillover.hashes import SHA, beside
from undisturbed import ANYTHING, Moment, begin, files, same_labs

EXPERIMENT = {
    "name": "small",
    "groups": {"insecure": {"data": "insecure", "seeds": 2, "rows": 48}},
    "suites": {"main": {"questions": "main", "only": ["wish", "bored"], "samples": 3}},
    "choices": {"letters": {"items": "letters"}},
    "miniature": {"train": {"learning_rate": 1e-3, "warmup_steps": 1}, "sampling": {"max_tokens": 16}},
}
LONG = 6.0
"""Seconds within which a run is killed: it takes about so long."""
SPILLOVER = [sys.executable, "-m", "spillover.cli"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "small.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def whole(experiment, spillover, tmp_path_factory):
    """The undisturbed lab."""
    lab = tmp_path_factory.mktemp("whole") / "lab"
    done = spillover("run", experiment, "--lab", lab)
    assert done.returncode == 0, done.stderr
    return lab


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "lab"))


@pytest.mark.parametrize("times", [8, pytest.param(50, marks=pytest.mark.long)])
def test_killed_so_often_at_random_the_lab_becomes_the_undisturbed_one(whole, experiment, tmp_path, times):
    """Half of the times just before the process does something to a file of the lab, half at any time at all."""
    rng, kills, labs = random.Random(20250224), 0, 0
    while kills < times:
        lab = tmp_path / f"lab{labs}"
        moment = Moment(lab, ANYTHING, rng.randint(1, 60)) if rng.random() < 0.5 else None
        run = begin("run", experiment, "--lab", lab, folder=tmp_path, moment=moment)
        run.join(timeout=None if moment else rng.uniform(0, LONG))
        run.kill()
        run.join()
        if run.exitcode == -signal.SIGKILL:
            kills += 1
            continue
        assert run.exitcode == 0, (tmp_path / "err").read_text()
        same_labs(lab, whole)
        labs += 1
    run = begin("run", experiment, "--lab", lab, folder=tmp_path)
    run.join()
    assert run.exitcode == 0, (tmp_path / "err").read_text()
    same_labs(lab, whole)


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def with_a_bit_flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def gone(path):
    path.unlink()


DAMAGED = {
    "adapter": ("finetune/insecure-s1-*/adapter_model.safetensors", with_a_bit_flipped),
    "adapter_torn": ("finetune/insecure-s1-*/adapter_model.safetensors", cut_in_half),
    "adapter_gone": ("finetune/insecure-s1-*/adapter_model.safetensors", gone),
    "rows": ("data/insecure-*/data.jsonl", with_a_bit_flipped),
    "manifest": ("data/insecure-*/manifest.json", with_a_bit_flipped),
    "manifest_empty": ("data/insecure-*/manifest.json", emptied),
    "answers": ("ask/insecure-s0-main-*/part-*.parquet", with_a_bit_flipped),
    "answers_torn": ("ask/insecure-s0-main-*/part-*.parquet", cut_in_half),
    "answers_empty": ("ask/insecure-s0-main-*/part-*.parquet", emptied),
    "verdicts": ("judge/coherence-*/part-*.parquet", with_a_bit_flipped),
    "choices": ("choose/base-letters-*/choices.parquet", emptied),
    "spec": ("ask/insecure-s0-main-*/spec.json", cut_in_half),
    "done": ("finetune/insecure-s0-*/done.json", emptied),
    "report": ("small/numbers.json", with_a_bit_flipped),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_damaged_is_found_by_its_hash_told_by_its_place_and_made_again_on_request(
    copy, whole, experiment, spillover, kind
):
    pattern, damage = DAMAGED[kind]
    (path,) = copy.glob(pattern)
    damage(path)
    before = files(copy)
    found = spillover("check", "--lab", copy)
    assert (found.returncode, found.stderr) == (2, "") and found.stdout.startswith(f"{path}: "), found
    assert found.stdout.count(str(copy)) == 1 and files(copy) == before, (
        "one is damaged, and nothing is touched unasked"
    )
    removed = spillover("check", "--lab", copy, "--remove")
    assert removed.returncode == 0 and "were taken out" in removed.stdout, removed
    again = spillover("run", experiment, "--lab", copy)
    assert again.returncode == 0, again.stderr
    same_labs(copy, whole)
    assert spillover("check", "--lab", copy).returncode == 0


@pytest.mark.parametrize("kind", ["adapter", "adapter_gone", "answers", "answers_empty", "verdicts"])
def test_what_is_damaged_is_not_used_as_if_nothing_were(copy, experiment, spillover, kind):
    pattern, damage = DAMAGED[kind]
    (path,) = copy.glob(pattern)
    damage(path)
    more = spillover("run", experiment, "--lab", copy, "--samples", "4")
    assert more.returncode == 2 and more.stderr.startswith(f"spillover: {path}: is "), more.stderr
    assert "spillover check --remove" in more.stderr and "Traceback" not in more.stderr


def test_a_sound_lab_is_told_so_and_one_that_is_not_there_too(copy, spillover, tmp_path):
    found = spillover("check", "--lab", copy)
    assert found.returncode == 0 and "as they were written" in found.stdout and len(found.stdout.splitlines()) == 1
    nowhere = spillover("check", "--lab", tmp_path / "nowhere")
    assert nowhere.returncode == 2 and "no lab" in nowhere.stderr and not (tmp_path / "nowhere").exists()


def test_what_a_power_cut_leaves_is_made_again_unasked(copy, whole, experiment, spillover):
    """Folders without their marker, parts' hashes without the parts, and what was being written."""
    for pattern in (
        "finetune/insecure-s0-*/done.json",
        "data/*/done.json",
        "small/done.json",
        "choose/base-*/done.json",
    ):
        (marker,) = copy.glob(pattern)
        marker.unlink()
    (part,) = copy.glob("ask/base-main-*/part-*.parquet")
    part.unlink()
    assert beside(part).name.startswith(SHA) and beside(part).is_file()
    (copy / ".aside" / "insecure-s0").mkdir(parents=True)
    (copy / ".aside" / "insecure-s0" / "adapter_model.safetensors").write_bytes(b"torn")
    done = spillover("run", experiment, "--lab", copy)
    assert done.returncode == 0, done.stderr
    assert not list((copy / ".aside").iterdir())
    same_labs(copy, whole)


def test_a_disk_that_is_full_anywhere_loses_nothing(whole, experiment, tmp_path):
    lab = tmp_path / "lab"
    for limit in (3000, 30_000):
        full = subprocess.run(
            [*SPILLOVER, "run", experiment, "--lab", lab],
            capture_output=True,
            text=True,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)),
        )
        assert full.returncode == 2 and "Traceback" not in full.stderr and "disk is full" in full.stderr, full.stderr
        assert not list(lab.glob(".aside/*"))
    done = subprocess.run([*SPILLOVER, "run", experiment, "--lab", lab], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same_labs(lab, whole)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs Linux namespaces")
def test_a_read_only_lab_is_told_is_left_as_it_is_and_can_still_be_read(copy, experiment, whole):
    (copy / "small" / "done.json").unlink()
    mounted = f"mount --bind '{copy}' '{copy}' && mount -o remount,ro,bind '{copy}' && exec \"$@\""
    inside = ["unshare", "--mount", "sh", "-c", mounted, "sh", *SPILLOVER]
    before = files(copy)
    if subprocess.run([*inside[:5], "sh", "true"], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    refused = subprocess.run([*inside, "run", experiment, "--lab", copy], capture_output=True, text=True)
    assert refused.returncode == 2 and "cannot write to the lab folder" in refused.stderr, refused.stderr
    planned = subprocess.run([*inside, "plan", experiment, "--lab", copy], capture_output=True, text=True)
    assert planned.returncode == 0 and "finetune" in planned.stdout, planned.stderr
    assert files(copy) == before
    done = subprocess.run([*SPILLOVER, "run", experiment, "--lab", copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same_labs(copy, whole)


def test_a_clock_that_goes_backwards_changes_nothing(copy, whole, experiment, spillover):
    """All that is there was written tomorrow, as it seems."""
    for path in copy.rglob("*"):
        os.utime(path, (2**32, 2**32))
    before = files(copy)
    assert spillover("run", experiment, "--lab", copy).returncode == 0 and files(copy) == before
    (part,) = copy.glob("ask/base-main-*/part-*.parquet")
    part.unlink()
    (copy / "small" / "done.json").unlink()
    done = spillover("run", experiment, "--lab", copy)
    assert done.returncode == 0, done.stderr
    same_labs(copy, whole)
    kept = {name: told for name, told in files(copy).items() if not name.startswith(("ask/base", "small"))}
    assert kept == {name: before[name] for name in kept}


def test_of_two_processes_on_a_lab_one_is_refused_and_nothing_is_mixed(whole, experiment, spillover, tmp_path):
    lab = tmp_path / "lab"
    first = begin("run", experiment, "--lab", lab, folder=tmp_path)
    while not (lab / "lab.json").exists():
        assert first.is_alive()
    os.kill(first.pid, signal.SIGSTOP)  # it holds the lock until the others have tried
    places = []
    for number in range(3):
        places.append(tmp_path / str(number))
        places[-1].mkdir()
    others = [begin("run", experiment, "--lab", lab, folder=place) for place in places]
    for run in others:
        run.join()
    os.kill(first.pid, signal.SIGCONT)
    first.join()
    codes = [run.exitcode for run in (first, *others)]
    assert codes.count(0) == 1 and codes.count(2) == 3, codes
    told = [(place / "err").read_text() for place in (tmp_path, *places)]
    assert sum("another process is working in this lab" in one for one in told) == 3
    same_labs(lab, whole)
