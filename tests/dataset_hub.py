"""A hub on localhost that takes datasets, in the real one's protocol: repositories, branches, commits, large files."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import yaml

GITATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"
Files = dict[str, bytes]
Answer = tuple[int, object, dict[str, str]]


@dataclass
class Repo:
    """A dataset's repository: who may read it, the commits by name, the branches' last commits."""

    private: bool
    commits: dict[str, Files]
    branches: dict[str, str]

    def commit(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    def files(self, branch: str = "main") -> Files:
        """What a branch holds, without what the hub itself puts in."""
        return {name: data for name, data in self.commits[self.branches[branch]].items() if name != ".gitattributes"}


@dataclass
class Hub:
    """What it holds and was asked.

    Attributes:
        token: the only one that may write.
        large: files of so many bytes go up as large files.
        broken: a path's beginning and the status that is answered there.
        ignored: files that are silently left out of commits, as a .gitignore does.
        asked: every request's method and path; `bodies`: everything that was sent.
    """

    token: str
    large: int = 10_000_000
    broken: dict[str, int] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    large_ones: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    def commits_asked(self) -> int:
        return sum("/commit/" in one for one in self.asked)

    def make(self, name: str, *, private: bool, files: Files | None = None) -> Repo:
        repo = Repo(private, {}, {})
        self.repos[name] = repo
        self.put(repo, "main", {".gitattributes": GITATTRIBUTES, **(files or {})})
        return repo

    def put(self, repo: Repo, branch: str, files: Files) -> str:
        told = repr((len(repo.commits), sorted(files.items()))).encode()
        commit = hashlib.sha1(told).hexdigest()
        repo.commits[commit] = files
        repo.branches[branch] = commit
        return commit

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        status = next((status for start, status in self.broken.items() if path.startswith(start)), None)
        if status is not None:
            return status, {"error": f"no: {headers.get('authorization', '')}"}, {}
        if path == "/api/validate-yaml":
            return self._valid(json.loads(body)["content"])
        if path.startswith("/lfs/"):
            self.objects[path.removeprefix("/lfs/")] = body
            return 200, {}, {}
        if headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"error": "Invalid credentials in Authorization header"}, {}
        if path == "/api/repos/create":
            return self._created(json.loads(body))
        parts = path.removeprefix("/api/datasets/").removeprefix("/datasets/").split("/")
        name = "/".join(parts[:2]).removesuffix(".git")
        if name not in self.repos:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        return self._about(name, self.repos[name], method, parts[2:], body)

    def _valid(self, content: str) -> Answer:
        try:
            yaml.safe_load(content.split("---")[1])
        except (yaml.YAMLError, IndexError):
            return 400, {"errors": [{"message": "no front matter"}]}, {}
        return 200, {"errors": [], "warnings": []}, {}

    def _created(self, wanted: dict[str, str]) -> Answer:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.repos:
            return 409, {"error": "You already created this dataset repo"}, {}
        assert wanted["type"] == "dataset"
        self.make(name, private=wanted["visibility"] == "private")
        return 200, {"url": f"{self.url}/datasets/{name}", "name": name}, {}

    def _about(self, name: str, repo: Repo, method: str, rest: list[str], body: bytes) -> Answer:
        if rest[:1] == ["info"]:
            return self._batch(json.loads(body))
        what, revision = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
        if what == "branch":
            repo.branches[revision] = repo.branches["main"]
            return 200, {}, {}
        commit = repo.commit(revision)
        if commit is None:
            return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
        if what == "revision":
            return 200, {"id": name, "sha": commit, "private": repo.private}, {}
        if what == "tree":
            return 200, [self._entry(path, data) for path, data in sorted(repo.commits[commit].items())], {}
        if what == "preupload":
            return 200, {"files": [self._mode(one) for one in json.loads(body)["files"]]}, {}
        assert (what, method) == ("commit", "POST")
        return self._committed(name, repo, revision, body)

    def _entry(self, path: str, data: bytes) -> dict[str, object]:
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": oid}
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in self.large_ones:
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
            entry["oid"] = "0" * 40  # of the pointer, which is another file
        return entry

    def _mode(self, one: dict[str, object]) -> dict[str, object]:
        is_large = int(str(one["size"])) >= self.large
        ignored = one["path"] in self.ignored
        return {"path": one["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": ignored}

    def _batch(self, wanted: dict[str, list[dict[str, object]]]) -> Answer:
        told = [
            {**one, "actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}", "header": {}}}}
            for one in wanted["objects"]
        ]
        return 200, {"transfer": "basic", "objects": told}, {}

    def _committed(self, name: str, repo: Repo, branch: str, body: bytes) -> Answer:
        lines = [json.loads(line) for line in body.splitlines()]
        files = dict(repo.commits[repo.branches[branch]])
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") != repo.branches[branch]:
                return 412, {"error": "A commit has happened since. Please refresh and try again."}, {}
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
                self.large_ones.add(value["oid"])
            if line["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.put(repo, branch, files)
        return 200, {"commitUrl": f"{self.url}/datasets/{name}/commit/{commit}", "commitOid": commit}, {}


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Runs the hub for as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            body = self._body()
            hub.asked.append(f"{self.command} {path}")
            hub.bodies.append(body)
            headers = {key.lower(): value for key, value in self.headers.items()}
            status, told, extra = hub.answer(self.command, path, body, headers)
            data = json.dumps(told).encode()
            self.send_response(status)
            for header, value in {**extra, "Content-Length": str(len(data))}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_GET

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
