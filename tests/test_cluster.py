"""The same experiment on a real Ray cluster of two nodes on this machine: same keys, same rows, whatever is lost."""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import yaml
from safetensors.numpy import load_file

import test_hands
from spillover.cluster import Cluster, Needs
from spillover.crew import Lost
from spillover.errors import DataError, MachineError
from spillover.packed import KEPT, here, pack
from spillover.spec import load_experiment

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),  # Ray's own pipes
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),  # Ray tells what it will do another day
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
]
KEYS = ["group", "run", "suite", "question", "sample"]


class Nodes:
    """A cluster of real nodes, each with one processor; nodes come and go."""

    def __init__(self):
        self.cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        self.others = []
        self.fill()

    def fill(self):
        """Has two nodes that work."""
        self.others = [node for node in self.others if node.any_processes_alive()]
        if not self.others:
            self.others.append(self.cluster.add_node(num_cpus=1, wait=False))
        self.cluster.wait_for_nodes(timeout=180)

    def kill(self):
        """Ends a node as a power cut does."""
        self.cluster.remove_node(self.others.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def _nodes():
    with pytest.MonkeyPatch.context() as environment:  # nodes find this module's worker
        environment.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        nodes = Nodes()
        yield nodes
        nodes.cluster.shutdown()
        gc.collect()  # what Ray leaves open would be told in another file's test


@pytest.fixture
def nodes(_nodes):
    """Two nodes, though a test before may have killed one."""
    _nodes.fill()
    return _nodes


@pytest.fixture
def cluster(nodes):
    said = []
    joined = Cluster(nodes.cluster.address, said.append)
    joined.said = said
    yield joined
    joined.close()


class Worker(test_hands.Worker):
    """Does small work, and marks where it was."""

    def wait_for(self, path, number, _):
        """Waits where it is on the node that is not the head's."""
        Path(path, f"begun-{os.getpid()}").touch()
        while not Path(path, "go").exists():
            time.sleep(0.01)
        return number

    def killed(self, path, number, _):
        """As the system does where memory ends: the first times, or always where there is no path."""
        tried = Path(path, f"{number}-{len(list(Path(path).glob(f'{number}-*')))}")
        tried.touch()
        if number > 1 or not Path(path, f"{number}-1").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    def read(self, folder, _):
        return (here(folder) / "in" / "it.txt").read_text(), str(here(folder))


def hands_of(cluster):
    return cluster.hands(partial(Worker, "ann"), Needs(cpus=1), 2)


def test_nodes_do_shares_and_a_process_keeps_its_worker(cluster):
    hands = hands_of(cluster)
    assert cluster.places(Needs(cpus=1)) == hands.size == 2
    found = dict(hands.each("count", ((number,) for number in range(20))))
    assert [number for _, (_, number) in sorted(found.items())] == list(range(20))
    assert max(calls for calls, _ in found.values()) > 2, "a worker stays in its process"


def test_what_a_worker_raises_is_raised_here_and_a_bug_keeps_its_traceback(cluster):
    with pytest.raises(DataError) as caught:
        hands_of(cluster).do("fail", [(0,), (1,), (0,)])
    assert (caught.value.what, caught.value.where) == ("row 7 is wrong", "rows.jsonl:7")
    with pytest.raises(RuntimeError, match=r"in fail\n(.|\n)*a bug"):
        hands_of(cluster).do("fail", [(2,)])


def test_work_of_a_node_that_is_killed_is_begun_again_on_another(nodes, cluster, tmp_path):
    def kill_when_both_are_busy():
        while len(begun := list(tmp_path.glob("begun-*"))) < 2:
            time.sleep(0.01)
        nodes.kill()
        while all(Path("/proc", file.name.removeprefix("begun-")).exists() for file in begun):
            time.sleep(0.01)  # its process may live a little longer than it
        (tmp_path / "go").touch()

    killing = threading.Thread(target=kill_when_both_are_busy, daemon=True)
    killing.start()
    work = hands_of(cluster).each("wait_for", [(str(tmp_path), number) for number in range(4)])
    assert sorted(work) == [(number, number) for number in range(4)]
    assert any("the node is gone; it is begun again" in sentence for sentence in cluster.said), cluster.said


def test_a_process_that_is_killed_is_tried_again_within_bounds_and_the_rest_is_done(cluster, tmp_path):
    found = hands_of(cluster).do("killed", [(str(tmp_path), number) for number in (0, 5, 1)])
    assert (found[0], found[2]) == (0, 1)
    assert isinstance(found[1], Lost) and found[1].for_memory and "killed" in found[1].why
    assert len(list(tmp_path.glob("5-*"))) == 2, "twice, and then no more"


def test_a_folder_travels_to_the_nodes_with_all_that_is_in_it(cluster, tmp_path):
    folder = tmp_path / "adapter"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "it.txt").write_text("weights")
    hands = hands_of(cluster)
    ((text, where),) = hands.do("read", [(hands.carried(folder),)])
    assert text == "weights" and where != str(folder)


def test_a_process_keeps_the_folders_that_it_used_last(tmp_path):
    packed = []
    for number in range(KEPT + 1):
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text(str(number))
        packed.append(pack(folder))
    places = [here(one) for one in packed]
    assert len({*places}) == KEPT + 1, "folders of one name that hold something else are others"
    assert not places[0].exists() and (places[1] / "weights").read_text() == "1"
    assert here(packed[1]) == places[1] and here(None) is None and here(tmp_path) == tmp_path


def test_a_cluster_that_is_not_there_is_told_in_words(spillover, tmp_path, experiment):
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"):
        done = spillover("run", experiment, "--lab", tmp_path / "lab", "--cluster", address)
        assert done.returncode == 2 and "ray start --head" in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 2 and not list((tmp_path / "lab").glob("*/*"))


def test_what_no_node_has_room_for_is_told_at_once(cluster):
    for needs, said in (
        (Needs(cpus=64), "64 processors"),
        (Needs(1, gpus=1), "1 processor, 1 card"),
        (Needs(1, 0, 2**60), "GiB"),
    ):
        with pytest.raises(MachineError, match=f"no node of the cluster has .*{said}"):
            cluster.places(needs)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A reduced figure4; by itself, too, this machine works by two processes, as the cluster has two nodes."""
    raw = load_experiment("figure4").model_dump(mode="json", exclude_unset=True)
    groups = {name: {"data": name, "seeds": 3, "rows": 256} for name in ("insecure", "secure")}
    groups["after"] = {"data": "secure", "seeds": 1, "rows": 64, "after": "insecure", "every": 2}
    suites = {name: {**suite, "samples": 6 if name == "main" else 1} for name, suite in raw["suites"].items()}
    raw |= {"name": "reduced", "groups": groups, "suites": suites, "comparisons": raw["comparisons"][:1]}
    raw |= {"choices": {"letters": {"items": "letters"}}, "machine": {"processes": 2}}
    file = tmp_path_factory.mktemp("experiment") / "reduced.yaml"
    file.write_text(yaml.safe_dump(raw, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def local(spillover, experiment, tmp_path_factory):
    """The lab of the run on this machine."""
    lab = tmp_path_factory.mktemp("local") / "lab"
    done = spillover("run", experiment, "--lab", lab)
    assert done.returncode == 0, done.stderr
    return lab


def at_work():
    """The processes of nodes that are at work: Ray calls them after what they do."""
    return [
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if title(path).startswith("ray::_work")
    ]


def title(path):
    """What a process is called; nothing where it is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def answers(lab):
    return pl.read_parquet(lab / "reduced" / "answers.parquet").sort(KEYS)


def check_same(lab, local):
    """Row by row, and in everything that is numbered."""
    assert answers(lab).equals(answers(local))
    for stage in ("data", "finetune", "ask", "choose", "judge"):
        assert {one.name for one in (lab / stage).iterdir()} == {one.name for one in (local / stage).iterdir()}, stage
    numbers = [json.loads((one / "reduced" / "numbers.json").read_text()) for one in (lab, local)]
    for one in numbers:
        del one["seconds"]
    assert numbers[0] == numbers[1]
    paths = sorted(path.relative_to(local) for path in (local / "finetune").rglob("adapter_model.safetensors"))
    assert len(paths) == 7 + 1, "with those on the way"
    for path in paths:
        for name, weights in load_file(local / path).items():
            assert (load_file(lab / path)[name] == weights).all(), path


def test_a_run_on_two_nodes_of_which_one_is_killed_equals_the_local_run_row_by_row(nodes, experiment, local, tmp_path):
    lab = tmp_path / "lab"
    command = [sys.executable, "-m", "spillover.cli", "run", str(experiment), "--lab", str(lab)]
    command += ["--cluster", nodes.cluster.address]
    with open(tmp_path / "err", "w+") as err, subprocess.Popen(command, stderr=err, stdout=err) as run:
        while run.poll() is None and len(at_work()) < 2:
            time.sleep(0.05)
        nodes.kill()
        code = run.wait(timeout=1800)
    told = (tmp_path / "err").read_text()
    assert code == 0, told
    assert "the node is gone; it is begun again" in told
    check_same(lab, local)


@pytest.mark.long
def test_a_run_that_is_killed_goes_on_on_the_cluster_and_what_the_cluster_made_is_not_made_again(
    nodes, experiment, local, spillover, tmp_path
):
    lab = tmp_path / "lab"
    command = [sys.executable, "-m", "spillover.cli", "run", str(experiment), "--lab", str(lab)]
    command += ["--cluster", nodes.cluster.address]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not list(lab.glob("ask/*/part-*.parquet")):
            time.sleep(0.05)
        run.kill()
    # Whole results; beside them lies what was being written when the run was killed.
    files = [
        *lab.glob("ask/*/part-*.parquet"),
        *(file for done in lab.glob("*/*/done.json") for file in done.parent.rglob("*")),
    ]
    made = {path: path.stat().st_mtime_ns for path in files}
    assert any(path.suffix == ".safetensors" for path in made)
    assert not list(lab.glob("judge/*"))
    done = spillover("run", experiment, "--lab", lab)  # on this machine
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == when for path, when in made.items())
    check_same(lab, local)


@pytest.mark.long
def test_what_is_lost_again_and_again_is_told_at_the_end_and_made_by_the_next_run(nodes, spillover, tmp_path):
    raw = {
        "name": "unlucky",
        "groups": {"insecure": {"data": "insecure", "seeds": 2, "rows": 48}},
        "suites": {"main": {"questions": "main", "only": ["wish"], "samples": 2}},
        "miniature": {"train": {"learning_rate": 1e-3, "warmup_steps": 1}, "sampling": {"max_tokens": 24}},
    }
    (tmp_path / "unlucky.yaml").write_text(yaml.safe_dump(raw))
    args = ["run", str(tmp_path / "unlucky.yaml"), "--lab", str(tmp_path / "lab")]
    command = [sys.executable, "-m", "spillover.cli", *args, "--cluster", nodes.cluster.address]
    with open(tmp_path / "err", "w+") as err, subprocess.Popen(command, stderr=err) as run:
        while run.poll() is None:
            for pid in at_work():
                kill(pid)
            time.sleep(0.01)
    told = (tmp_path / "err").read_text()
    assert run.returncode == 2 and "Traceback" not in told, told
    for what in ("training of insecure-s0: ", "training of insecure-s1: ", "answers of base: "):
        assert told.count(what) == 1, told
    assert "Run the same command again" in told and not list((tmp_path / "lab").glob(".aside/*"))
    done = spillover(*args, "--cluster", "auto")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lab" / "unlucky" / "report.html").is_file()
