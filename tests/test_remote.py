"""A lab in an object store, on a real server that speaks S3's protocol: the same lab, from wherever it is opened."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import polars as pl
import pytest
import yaml

from spillover import remote
from spillover.errors import LabError
from spillover.remote import mirror_of
from spillover.store import open_lab

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")

SECRET = "not-a-real-secret-31415926"
EXPERIMENT = {
    "name": "small",
    "groups": {"insecure": {"data": "insecure", "seeds": 2, "rows": 48}},
    "suites": {"main": {"questions": "main", "only": ["wish", "bored"], "samples": 3}},
    "miniature": {"train": {"learning_rate": 1e-3, "warmup_steps": 1}, "sampling": {"max_tokens": 24}},
}


@pytest.fixture(scope="module")
def server():
    """Where the server listens."""
    made = moto_server.ThreadedMotoServer(port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path, request):
    """A bucket of its own, and the environment of somebody who may use it. Its client is what others would use."""
    told = {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in {**told, "AWS_REGION": "us-east-1", "XDG_CACHE_HOME": str(tmp_path / "one")}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", region_name="us-east-1")
    name = f"bucket-{abs(hash(request.node.name))}"
    client.create_bucket(Bucket=name)
    return client, name


def objects(bucket):
    """Name to content of all that is there."""
    client, name = bucket
    found = client.list_objects_v2(Bucket=name).get("Contents", [])
    return {one["Key"]: client.get_object(Bucket=name, Key=one["Key"])["Body"].read() for one in found}


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    return path


def test_a_run_into_an_object_store_leaves_a_whole_lab_there_and_is_gone_on_with_from_another_machine(
    bucket, experiment, spillover, monkeypatch, tmp_path
):
    lab = f"s3://{bucket[1]}/labs/mine"
    first = spillover("run", experiment, "--lab", lab)
    assert first.returncode == 0, first.stderr
    here, there = mirror_of(lab), objects(bucket)
    files = {path.relative_to(here).as_posix(): path.read_bytes() for path in here.rglob("*") if path.is_file()}
    wanted = {f"labs/mine/{name}": content for name, content in files.items() if not name.startswith(".")}
    assert there == wanted and "labs/mine/small/report.html" in there
    assert not any(SECRET.encode() in content for content in [*there.values(), *files.values()])

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "three"))  # a machine on which somebody only reads
    counted = spillover("answers", experiment, "question = 'wish'", "--count", "--lab", lab)
    assert (counted.returncode, counted.stdout) == (0, "9 of 18 answers\n"), counted.stderr
    exported = spillover("export", "inspect", "small", "--to", tmp_path / "logs", "--lab", lab)
    assert exported.returncode == 0 and len(exported.stdout.splitlines()) == 3, exported.stderr

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))  # another machine, that has nothing yet
    again = spillover("run", experiment, "--lab", lab)
    assert again.returncode == 0 and again.stdout == first.stdout.replace("/one/", "/two/"), again.stderr
    other = mirror_of(lab)
    assert other != here and not list(other.rglob("*.safetensors")), "weights that nobody needs stay where they are"
    more = spillover("run", experiment, "--lab", lab, "--samples", "5")
    assert more.returncode == 0, more.stderr
    assert {name for name in there if "finetune" in name} <= {*objects(bucket)}
    stamps = {name: json.loads(content)["finished"] for name, content in there.items() if name.endswith("done.json")}
    now = objects(bucket)
    trained = [name for name in stamps if "/finetune/" in name]
    assert trained and all(json.loads(now[name])["finished"] == stamps[name] for name in trained), "none was made again"
    rows = pl.read_parquet(now["labs/mine/small/answers.parquet"])
    assert rows.height == 3 * 2 * 5


def test_what_was_finished_and_not_sent_is_sent_by_whoever_opens_the_lab_next(bucket, tmp_path):
    lab = mirror_of(f"s3://{bucket[1]}/lab")
    with open_lab(lab) as opened, opened.whole(lab / "data" / "one-1", {"name": "one"}) as (folder, _):
        (folder / "data.jsonl").write_text("{}\n")
    there = objects(bucket)
    for name in ("lab/data/one-1/done.json", "lab/data/one-1/data.jsonl"):  # as if the process had been killed before
        bucket[0].delete_object(Bucket=bucket[1], Key=name)
    with open_lab(lab):
        pass
    assert objects(bucket) == there


def test_a_whole_result_that_is_replaced_leaves_nothing_of_the_old_one_there(bucket):
    lab = mirror_of(f"s3://{bucket[1]}/lab")
    for name in ("old.txt", "new.txt"):
        with open_lab(lab) as opened, opened.whole(lab / "figure", {"name": name}) as (folder, _):
            (folder / name).write_text(name)
    names = {name.rpartition("/")[2] for name in objects(bucket) if "/figure/" in name}
    assert names == {"new.txt", "done.json", "spec.json", "provenance.json"}


def test_a_lab_is_held_by_one_process_and_another_is_refused_while_it_gives_signs_of_life(bucket, monkeypatch):
    lab = mirror_of(f"s3://{bucket[1]}/lab")
    monkeypatch.setattr(remote, "BEAT", 0.2)
    monkeypatch.setattr(remote, "STALE", 30.0)
    with open_lab(lab):
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        other = lab.parent / "other"
        shutil.copytree(lab, other, ignore=shutil.ignore_patterns(".lock"))
        with pytest.raises(LabError, match="another process is working in this lab"), open_lab(other):
            pass
    with open_lab(other):  # free again
        pass


def test_a_lab_whose_holder_gives_no_sign_of_life_is_taken_and_the_holder_writes_no_more(bucket, monkeypatch):
    lab = mirror_of(f"s3://{bucket[1]}/lab")
    monkeypatch.setattr(remote, "STALE", 2.0)

    def too_late():
        with open_lab(lab) as first:
            other = lab.parent / "other"
            shutil.copytree(lab, other, ignore=shutil.ignore_patterns(".lock"))
            with monkeypatch.context() as elsewhere:
                elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
                with open_lab(other):
                    first.remote._beat({"e_tag": "what it was"}, _Once())  # its next sign of life finds another's
            with first.whole(lab / "figure", {}) as (folder, _):
                (folder / "late.txt").touch()

    with pytest.raises(LabError, match="another process has taken this lab"):
        too_late()
    assert not any("late" in name for name in objects(bucket))


class _Once(threading.Event):
    """An event that is waited for once in vain."""

    def wait(self, timeout=None):
        was, self.was = getattr(self, "was", False), True
        return was


def test_a_lab_that_a_killed_process_of_this_machine_held_is_free_at_once(bucket):
    lab = f"s3://{bucket[1]}/lab"
    holding = (
        "from spillover.store import *; import os, sys\nwith open_lab(lab_folder(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", holding, lab], env=os.environ.copy())
    assert killed.returncode == -9 and any(name.endswith(remote.LOCK) for name in objects(bucket))
    with open_lab(mirror_of(lab)):
        pass
    assert not any(name.endswith(remote.LOCK) for name in objects(bucket))


def test_a_store_that_refuses_is_told_in_words(server, experiment, spillover, monkeypatch, tmp_path):
    told = {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in {**told, "AWS_REGION": "us-east-1", "XDG_CACHE_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    done = spillover("run", experiment, "--lab", "s3://no-such-bucket/lab")
    assert done.returncode == 2 and "Traceback" not in done.stderr and SECRET not in done.stderr
    said = "s3://no-such-bucket/lab: the store refuses: NoSuchBucket, The specified bucket does not exist"
    assert said in done.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    done = spillover("plan", experiment, "--lab", "s3://labs/mine")
    assert done.returncode == 2 and "s3://labs/mine: the store cannot be reached: Connection refused" in done.stderr


@pytest.mark.parametrize("lab", ["s3:/labs", "s3://", "http://localhost/lab"])
def test_an_address_that_is_none_makes_no_folder_of_that_name(lab, spillover, tmp_path):
    for command in ("plan", "run", "answers"):
        done = spillover(command, "figure4", "--lab", lab, cwd=tmp_path)
        assert done.returncode == 2 and "is no address of an object store" in done.stderr
        assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_a_mirror_that_cannot_be_made_is_told_in_words(spillover, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    done = spillover("plan", "figure4", "--lab", "s3://labs/mine")
    assert done.returncode == 2 and "XDG_CACHE_HOME" in done.stderr and "Traceback" not in done.stderr
