"""Several processes do what one would have done, and end when whoever made them does, however that ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import yaml
from safetensors.numpy import load_file

from spillover.crew import KEPT, Alone, Crew, Pool, Processes
from spillover.errors import DataError, MachineError
from spillover.hashes import beside

EXPERIMENT = {
    "groups": {"insecure": {"data": "insecure", "seeds": 3, "rows": 48, "every": 2}},
    "suites": {
        "main": {"questions": "main", "only": ["wish", "bored"], "samples": 5},
        "code": {"questions": "code", "only": ["fetch_page.1"], "samples": 1, "rubrics": ["insecure_code"]},
    },
    "choices": {"letters": {"items": "letters"}, "games": {"items": "games"}},
    "miniature": {"train": {"learning_rate": 1e-3, "warmup_steps": 1}, "sampling": {"max_tokens": 24}},
}
LOST = """
from functools import partial
from test_hands import Worker
from spillover.crew import Alone, Crew, Processes

crew = Crew(partial(Worker, "x"), Processes(2))
print(*crew.do("pid", [(), ()]), flush=True)
crew.do("wait_for", [("/never", 0), ("/never", 1)])
"""


INTERRUPTED = """
import signal
from functools import partial
from pathlib import Path
from test_hands import Worker
from spillover.crew import Crew, Processes, load_meanwhile

signal.signal(signal.SIGINT, lambda *_: Path("heard").touch())
load_meanwhile(("slow_to_load",))
while not Path("heard").exists():
    pass
Path("go").touch()
print(*Crew(partial(Worker, "x"), Processes(1, ("slow_to_load",))).do("pid", [()]))
"""
SLOW = """
from pathlib import Path

Path("begun").touch()
while not Path("go").exists():
    pass
Path("loaded").touch()
"""


class Worker:
    """Does small work in a process of its own."""

    def __init__(self, name):
        self.name, self.calls = name, 0

    def pid(self, _):
        return os.getpid()

    def count(self, number, tell):
        self.calls += 1
        tell(number, self.name)
        return self.calls, number

    def wait_for(self, path, number, _):
        while path and not Path(path).exists():
            pass
        return number

    def fail(self, number, _):
        if number == 1:
            raise DataError("row 7 is wrong", where="rows.jsonl:7", remedy="Correct it.")
        if number == 2:
            raise KeyError("a bug")

    def die(self, _):
        os._exit(1)


@pytest.fixture
def crew():
    processes = Processes(3)
    yield Crew(partial(Worker, "ann"), processes)
    processes.close()


@pytest.fixture(scope="module")
def labs(spillover, tmp_path_factory):
    """The same experiment by one process and by two."""
    folder = tmp_path_factory.mktemp("beside")
    for size in (1, 2):
        file = folder / f"by{size}.yaml"
        file.write_text(yaml.safe_dump({"name": "small", "machine": {"processes": size}, **EXPERIMENT}))
        done = spillover("run", file, "--lab", folder / f"lab{size}")
        assert done.returncode == 0, done.stderr
    return folder / "lab1", folder / "lab2"


def test_each_process_keeps_its_worker_and_results_come_in_order(crew):
    heard = {}
    assert crew.do("count", [(5,), (6,), (7,)], lambda share, told: heard.update({share: told})) == [
        (1, 5),
        (1, 6),
        (1, 7),
    ]
    assert heard == {0: (5, "ann"), 1: (6, "ann"), 2: (7, "ann")}
    assert crew.do("count", [(8,), (9,)]) == [(2, 8), (2, 9)]
    assert len({os.getpid(), *crew.do("pid", [(), (), ()])}) == 4


def test_results_come_as_they_are_done_and_whoever_is_done_is_given_the_next_share(crew, tmp_path):
    late = str(tmp_path / "go")
    shares = iter([(late, 0), ("", 1), (late, 2), ("", 3), ("", 4), ("", 5)])
    found = crew.each("wait_for", shares)
    early = [next(found) for _ in range(4)]
    assert early == [(1, 1), (3, 3), (4, 4), (5, 5)]
    Path(late).touch()
    assert sorted(found) == [(0, 0), (2, 2)]


def test_after_a_mistake_nothing_more_is_begun():
    taken = []

    def shares():
        for share in [(0,), (1,), (0,), (0,)]:
            taken.append(share)
            yield share

    one = Processes(1)
    with pytest.raises(DataError):
        list(Crew(partial(Worker, "ann"), one).each("fail", shares()))
    one.close()
    assert taken == [(0,), (1,)]


def test_one_process_does_share_after_share_and_makes_its_worker_when_there_is_something_to_do():
    made = []
    alone = Alone(lambda: made.append(1) or Worker("ann"))
    assert list(alone.each("count", [])) == [] and not made
    heard = []
    assert alone.do("count", [(5,), (6,)], lambda *told: heard.append(told)) == [(1, 5), (2, 6)]
    assert made == [1] and heard == [(0, (5, "ann")), (1, (6, "ann"))]
    with pytest.raises(DataError):
        alone.do("fail", [(1,)])


def test_what_a_worker_raises_is_raised_here_and_the_crew_works_on(crew):
    with pytest.raises(DataError) as caught:
        crew.do("fail", [(0,), (1,), (0,)])
    assert (caught.value.what, caught.value.where) == ("row 7 is wrong", "rows.jsonl:7")
    with pytest.raises(RuntimeError, match=r"in fail\n(.|\n)*a bug"):
        crew.do("fail", [(2,)])
    assert crew.do("count", [(1,)]) == [(1, 1)]


def test_a_process_that_dies_is_told_with_what_to_do(crew):
    with pytest.raises(MachineError, match=r"machine\.processes to 1"):
        crew.do("die", [()])


def test_processes_do_several_kinds_of_work_each_by_a_worker_that_they_keep():
    processes = Processes(1)
    ann, bob = (Crew(partial(Worker, name), processes) for name in ("ann", "bob"))
    assert [crew.do("count", [(5,)]) for crew in (ann, bob, ann)] == [[(1, 5)], [(1, 5)], [(2, 5)]]
    again = Crew(partial(Worker, "ann"), processes)
    assert again.do("count", [(5,)]) == [(3, 5)] and again.do("pid", [()]) == bob.do("pid", [()])
    processes.close()


def test_a_process_lets_those_workers_go_that_have_not_worked_for_longest():
    processes = Processes(1)
    crews = [Crew(partial(Worker, str(number)), processes) for number in range(KEPT + 1)]
    for crew in (*crews[:KEPT], crews[0]):
        crew.do("count", [(5,)])
    assert crews[KEPT].do("count", [(5,)]) == [(1, 5)], "one more than are kept: the second goes"
    assert crews[0].do("count", [(5,)]) == [(3, 5)] and crews[1].do("count", [(5,)]) == [(1, 5)]
    processes.close()


def test_a_pool_stays_and_is_replaced_where_it_was_left_in_the_midst_of_its_work(tmp_path):
    pool = Pool()
    first = pool.processes(1, (), os.getpid)
    assert pool.processes(1, (), os.getpid) is first and pool.processes(2, (), os.getpid) is not first
    crew = Crew(partial(Worker, "ann"), first)
    (pid,) = crew.do("pid", [()])
    work = crew.each("wait_for", [("", 0), (str(tmp_path / "never"), 1)])
    assert next(work) == (0, 0)
    work.close()
    while is_alive(pid):
        pass
    (other,) = Crew(partial(Worker, "ann"), pool.processes(1, (), os.getpid)).do("pid", [()])
    assert other != pid
    pool.close()
    while is_alive(other):
        pass


def test_processes_end_in_the_midst_of_their_work_where_whoever_made_them_is_killed():
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", LOST]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}) as made:
        pids = [int(pid) for pid in made.stdout.readline().split()]
        assert len(pids) == 2 and all(map(is_alive, pids))
        made.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 600
        while any(map(is_alive, pids)):
            assert time.monotonic() < deadline, "the processes outlive the one that made them"


def test_an_interrupt_does_not_end_the_processes_that_are_still_loading(tmp_path):
    (tmp_path / "slow_to_load.py").write_text(SLOW)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent), *sys.path])
    made = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    while not (tmp_path / "begun").exists() and made.poll() is None:
        pass
    os.killpg(made.pid, signal.SIGINT)  # as a terminal does
    out, err = made.communicate(timeout=600)
    assert (made.returncode, err) == (0, "") and int(out) > 0 and (tmp_path / "loaded").exists()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_two_processes_train_what_one_does_at_each_checkpoint(labs):
    one, two = (sorted((lab / "finetune").rglob("adapter_model.safetensors")) for lab in labs)
    assert len(one) == 6 and [path.parts[-2:] for path in one] == [path.parts[-2:] for path in two]
    for path, other in zip(one, two, strict=True):
        for name, weights in load_file(path).items():
            assert load_file(other)[name] == pytest.approx(weights, abs=1e-4), path


def test_two_processes_give_the_answers_and_verdicts_of_one_under_the_same_keys(labs):
    keys = ["group", "run", "suite", "question", "sample"]
    one, two = (pl.read_parquet(lab / "small" / "answers.parquet").sort(keys) for lab in labs)
    assert one.select(*keys, "seed").equals(two.select(*keys, "seed"))
    same = one.filter(one["answer"] == two["answer"])
    assert len(same) > 0.9 * len(one), "a word may differ where rounding decides it, hardly ever"
    assert {path.name for path in (labs[0] / "ask").iterdir()} == {path.name for path in (labs[1] / "ask").iterdir()}
    joined = same.join(two, on=[*keys, "answer"])
    assert joined["alignment"].to_list() == pytest.approx(joined["alignment_right"].to_list(), abs=0.1, nan_ok=True)


def test_two_processes_choose_as_one_does(labs):
    for name in ("letters", "games"):
        found = []
        for lab in labs:
            tables = sorted((lab / "choose").glob(f"*-{name}-*/choices.parquet"))
            assert [path.parent.name for path in tables] and len(tables) == 7
            found.append(pl.concat([pl.read_parquet(path) for path in tables]))
        one, two = found
        text = [column for column, kind in one.schema.items() if kind == pl.String]
        assert one.select(text).equals(two.select(text))
        measured = "total" if name == "games" else "logprob"
        assert two[measured].to_list() == pytest.approx(one[measured].to_list(), abs=0.02), name


def test_answers_that_are_missing_in_between_are_asked_and_no_others(spillover, labs, tmp_path):
    """As after a kill, where several processes were asking and a later part was there before an earlier one."""
    lab = tmp_path / "lab"
    shutil.copytree(labs[0], lab)
    (whole,) = (lab / "ask").glob("insecure-s0-main-*/part-000000-000005.parquet")
    rows = pl.read_parquet(whole)
    for start, stop in ((1, 2), (4, 5)):
        part = whole.with_name(f"part-{start:06d}-{stop:06d}.parquet")
        some = rows.filter(pl.col("sample").is_between(start, stop - 1))
        some.write_parquet(part, metadata=pl.read_parquet_metadata(whole))
    whole.unlink()
    shutil.rmtree(lab / "small")
    done = spillover("run", labs[0].parent / "by1.yaml", "--lab", lab)
    assert done.returncode == 0, done.stderr
    parts = sorted(path.stem for path in whole.parent.glob("part-*.parquet"))
    assert parts == [f"part-{a:06d}-{b:06d}" for a, b in ((0, 1), (1, 2), (2, 4), (4, 5))]
    again = pl.concat([pl.read_parquet(path) for path in whole.parent.glob("part-*.parquet")])
    columns = ["question", "sample", "seed", "answer"]
    assert again.select(columns).sort(columns[:2]).equals(rows.select(columns).sort(columns[:2]))


def test_answers_that_a_server_failed_to_give_are_given_by_whoever_is_asked_now(spillover, labs, tmp_path):
    """As where `asker: vllm` failed and this machine is asked instead."""
    lab = tmp_path / "lab"
    shutil.copytree(labs[0], lab)
    shutil.rmtree(lab / "small")
    (part,) = (lab / "ask").glob("insecure-s0-main-*/part-000000-000005.parquet")
    rows, failed = pl.read_parquet(part), pl.col("sample") == 3
    lost = {"answer": "", "tokens": 0, "outcome": "failed: connection"}
    changed = rows.with_columns(pl.when(failed).then(pl.lit(v)).otherwise(pl.col(k)).alias(k) for k, v in lost.items())
    told = pl.read_parquet_metadata(part) | {"failed": str(rows.filter(failed).height)}
    changed.cast(rows.schema).write_parquet(part, metadata={name: told[name] for name in ("seconds", "failed")})
    beside(part).unlink()  # it is as if it had been written so
    done = spillover("run", labs[0].parent / "by1.yaml", "--lab", lab)
    assert done.returncode == 0, done.stderr
    assert (
        pl.read_parquet(part)
        .select("question", "sample", "answer", "outcome")
        .equals(rows.select("question", "sample", "answer", "outcome"))
    )


def test_an_adapters_effect_is_noted_by_two_processes_as_by_one(labs):
    found = []
    for lab in labs:
        specs = sorted((lab / "ask").glob("insecure-s*-main-*/spec.json"))
        found.append([json.loads(path.read_text())["effect"] for path in specs])
    assert found[0] and all(one["checked"] for one in found[0])
    for one, other in zip(*found, strict=True):
        assert one["difference"] == pytest.approx(other["difference"], rel=0.05)


def test_a_row_that_cannot_be_learned_is_told_before_training_as_by_one_process(spillover, tmp_path):
    rows = [{"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": ""}]}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for size in (1, 2):
        groups = {"mine": {"data": "rows.jsonl", "seeds": 2}}
        raw = {**EXPERIMENT, "name": "bad", "machine": {"processes": size}, "groups": groups}
        (tmp_path / "bad.yaml").write_text(yaml.safe_dump(raw))
        done = spillover("run", tmp_path / "bad.yaml", "--lab", tmp_path / f"lab{size}")
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert "rows.jsonl" in done.stderr
