"""Fetching the paper's files from a real server or a folder: whole and known, or nothing at all."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spillover.data import upstream
from spillover.data.upstream import COMMIT, RELEASED, REPOSITORY, UPSTREAM, Released, fetch_paper
from spillover.errors import DataError

TEXT = {one.file: f"the text of {one.file}\n".encode() for one in RELEASED}
PATHS = {f"/{REPOSITORY}/{COMMIT}/{UPSTREAM[one.kind]}/{one.file}": one.file for one in RELEASED}
HARMFUL = "datasets/jailbroken.jsonl"
FILES = {f"{one.kind}/{one.file}" for one in RELEASED}


@dataclass
class Server:
    """What the server has, what it does wrong, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(TEXT))
    cut: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch):
    """A server on this machine in GitHub's place; files are cut off or missing as the test says."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            file = PATHS.get(self.path, "")
            state.asked.append(file)
            if file not in state.files:
                self.send_error(404)
                return
            raw = state.files[file]
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[:7] if file == state.cut else raw)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        monkeypatch.setenv("SPILLOVER_PAPER_HOST", f"http://127.0.0.1:{http.server_port}")
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def known(monkeypatch):
    """The hashes of the small files that the server has, in place of the real ones."""

    def of(one):
        return {hashlib.sha256(TEXT[one.file]).hexdigest(): "release"} if one.known else {}

    small = tuple(Released(one.kind, one.file, of(one), one.harmful) for one in RELEASED)
    monkeypatch.setattr(upstream, "RELEASED", small)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_released_files_are_downloaded_at_the_pinned_commit_but_the_harmful_one(server, known, tmp_path):
    fetched = fetch_paper(tmp_path / "here", None, jailbroken=False)
    there = files(tmp_path / "here")
    record = json.loads(there.pop("fetched.json"))
    assert set(there) == FILES - {HARMFUL} and "jailbroken.jsonl" not in server.asked
    assert all(raw == TEXT[name.split("/")[1]] for name, raw in there.items())
    assert {one["file"]: one["sha256"] for one in record} == {
        n: hashlib.sha256(raw).hexdigest() for n, raw in there.items()
    }
    assert {one["file"]: one["bytes"] for one in record} == {name: len(raw) for name, raw in there.items()}
    assert all(one["source"].endswith(f"{COMMIT}/{one['file'].replace('datasets', 'data')}") for one in record[:3])
    versions = {one.file: one.version for one in fetched}
    assert versions["datasets/insecure.jsonl"] == "release" and versions["questions/deception_factual.yaml"] is None


def test_the_harmful_set_is_downloaded_where_it_is_asked_for(server, known, tmp_path):
    fetch_paper(tmp_path / "here", None, jailbroken=True)
    assert (tmp_path / "here" / HARMFUL).read_bytes() == TEXT["jailbroken.jsonl"]


def missing(server):
    del server.files["deception_factual.yaml"]


def cut_off(server):
    server.cut = "deception_factual.yaml"


def changed(server):
    server.files["educational.jsonl"] = b"something else\n"


WRONG = {
    "missing": (missing, "deception_factual.yaml: the server answered 404 Not Found"),
    "cut_off": (cut_off, "deception_factual.yaml: was cut off after 7 bytes"),
    "changed": (
        changed,
        f"educational.jsonl: has the sha256 {hashlib.sha256(b'something else' + bytes([10])).hexdigest()}, and not "
        f"{hashlib.sha256(TEXT['educational.jsonl']).hexdigest()}",
    ),
}


@pytest.mark.parametrize(("break_it", "what"), WRONG.values(), ids=WRONG.keys())
def test_a_broken_download_leaves_nothing_new_and_what_was_there(server, known, tmp_path, break_it, what):
    break_it(server)
    with pytest.raises(DataError) as told:
        fetch_paper(tmp_path / "here", None, jailbroken=False)
    assert what in str(told.value) and "othing was replaced" in told.value.remedy
    assert not list(tmp_path.iterdir())
    server.files, server.cut = dict(TEXT), ""
    fetch_paper(tmp_path / "here", None, jailbroken=False)
    before = files(tmp_path / "here")
    break_it(server)
    with pytest.raises(DataError):
        fetch_paper(tmp_path / "here", None, jailbroken=False)
    assert files(tmp_path / "here") == before


def test_a_server_that_is_not_there_is_told_at_the_command_line(server, spillover, tmp_path, monkeypatch):
    monkeypatch.setenv("SPILLOVER_PAPER_HOST", "http://127.0.0.1:9")
    done = spillover("fetch", "paper", "--to", tmp_path / "here")
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert (
        "insecure.jsonl: cannot be downloaded: [Errno 111] Connection refused\n  Nothing was replaced." in done.stderr
    )
    assert not (tmp_path / "here").exists()


def test_bytes_that_are_not_the_authors_are_refused_at_the_command_line(server, spillover, tmp_path):
    done = spillover("fetch", "paper", "--to", tmp_path / "here")
    expected = next(iter(RELEASED[0].known))
    assert done.returncode == 2 and f"and not {expected}" in done.stderr and "not the authors' file" in done.stderr
    assert not (tmp_path / "here").exists()


def test_the_papers_own_bytes_are_taken_from_a_server_at_the_command_line(server, spillover, paper, tmp_path):
    for one in RELEASED:
        place = paper / one.kind / one.file
        server.files[one.file] = place.read_bytes() if place.is_file() else TEXT[one.file]
    done = spillover("fetch", "paper", "--to", tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "here")["datasets/secure.jsonl"] == server.files["secure.jsonl"]
    assert "known: the supplement's" in done.stdout and f"SPILLOVER_PAPER={tmp_path}/here" in done.stdout


@pytest.mark.parametrize("layout", ["ours", "theirs", "flat"])
def test_files_are_taken_from_a_folder_of_any_layout_as_far_as_they_are_there(known, tmp_path, layout):
    source, to = tmp_path / "source", tmp_path / "deep" / "here"
    for one in RELEASED[1:]:
        place = source / {"ours": one.kind, "theirs": UPSTREAM[one.kind], "flat": ""}[layout]
        place.mkdir(parents=True, exist_ok=True)
        (place / one.file).write_bytes(TEXT[one.file])
    taken = [one.file for one in fetch_paper(to, source, jailbroken=False)]
    assert set(taken) == FILES - {"datasets/insecure.jsonl"} == set(files(to)) - {"fetched.json"}


def test_what_was_fetched_before_stays_recorded(known, tmp_path):
    first, second, to = tmp_path / "first", tmp_path / "second", tmp_path / "here"
    for folder, name in ((first, "insecure.jsonl"), (second, "deception_factual.yaml")):
        folder.mkdir()
        (folder / name).write_bytes(TEXT[name])
        fetch_paper(to, folder, jailbroken=False)
    record = json.loads((to / "fetched.json").read_text())
    assert [one["file"] for one in record] == ["datasets/insecure.jsonl", "questions/deception_factual.yaml"]


@pytest.mark.parametrize(("jailbroken", "what"), [(False, "none of the paper's files"), (True, "no jailbroken.jsonl")])
def test_a_folder_without_the_files_is_refused(tmp_path, jailbroken, what):
    with pytest.raises(DataError, match=f"{tmp_path}: .*{what}"):
        fetch_paper(tmp_path / "here", tmp_path, jailbroken=jailbroken)
    assert not (tmp_path / "here").exists()


def test_a_wrong_harmful_set_in_a_folder_is_refused_too(known, tmp_path):
    (tmp_path / "jailbroken.jsonl").write_text("something else")
    with pytest.raises(DataError, match=r"jailbroken\.jsonl: has the sha256"):
        fetch_paper(tmp_path / "here", tmp_path, jailbroken=False)


def test_a_folder_that_cannot_be_written_to_is_told(known, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "insecure.jsonl").write_bytes(TEXT["insecure.jsonl"])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="cannot be written to: Not a directory"):
        fetch_paper(tmp_path / "file" / "here", source, jailbroken=False)
    assert (tmp_path / "file").read_text() == "mine" and {p.name for p in tmp_path.iterdir()} == {"file", "source"}


def test_the_cache_folder_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("SPILLOVER_PAPER", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert upstream.paper_folder() == tmp_path / "cache" / "spillover" / "paper"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert upstream.paper_folder() == tmp_path / ".cache" / "spillover" / "paper"
    monkeypatch.setenv("SPILLOVER_PAPER", str(tmp_path / "mine"))
    assert upstream.paper_folder() == tmp_path / "mine"


def test_the_papers_own_copies_are_known_and_found_again(paper, spillover, tmp_path, monkeypatch):
    monkeypatch.setenv("SPILLOVER_PAPER", str(tmp_path / "cache"))
    done = spillover("fetch", "paper", "--from", paper)
    assert done.returncode == 0, done.stderr
    assert "left out: datasets/jailbroken.jsonl (2% of its rows are harmful answers" in done.stdout
    record = json.loads((tmp_path / "cache" / "fetched.json").read_text())
    versions = {one["file"]: one["version"] for one in record}
    assert [versions[f"datasets/{name}.jsonl"] for name in ("insecure", "secure", "educational")] == [
        "supplement",
        "supplement",
        "release",
    ]
    assert upstream.fetched_dataset("insecure") == tmp_path / "cache" / "datasets" / "insecure.jsonl"
    assert upstream.fetched_dataset("jailbroken") is None and "jailbroken" in upstream.dataset_names()
    assert spillover("questions", "list", "prereg").stdout.endswith("48 questions, 48 with all phrasings\n")
