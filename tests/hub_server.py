"""A hub on localhost: it speaks as much of the Hugging Face hub's protocol as fetching a model takes."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Hub:
    """What the hub holds, what it was asked, and where it listens.

    Attributes:
        models: by OWNER/NAME, the folder of each commit; `main` is the last.
        gated: those whose files need a token that this hub never accepts.
        asked: every request's method and path, in order.
    """

    models: dict[str, dict[str, Path]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def weights_asked(self) -> list[str]:
        """Requests for weights."""
        return [one for one in self.asked if one.endswith((".safetensors", ".bin"))]

    def commit(self, model: str, revision: str) -> str | None:
        """The commit of a revision."""
        commits = self.models[model]
        return list(commits)[-1] if revision == "main" else revision if revision in commits else None


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Runs the hub for as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(hub, self, with_body=True)

        def do_HEAD(self) -> None:
            answer(hub, self, with_body=False)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


def answer(hub: Hub, request: BaseHTTPRequestHandler, *, with_body: bool) -> None:
    path = unquote(request.path.partition("?")[0])
    hub.asked.append(f"{request.command} {path}")
    parts = path.strip("/").split("/")
    is_api = parts[:2] == ["api", "models"]
    owner, name, *rest = parts[2:] if is_api else parts
    model = f"{owner}/{name}"
    if model not in hub.models:
        return send(request, 404, {"X-Error-Code": "RepoNotFound"})
    commit = hub.commit(model, rest[1] if len(rest) > 1 else "main")
    if commit is None:
        return send(request, 404, {"X-Error-Code": "RevisionNotFound"})
    folder = hub.models[model][commit]
    if is_api and rest[:1] == ["tree"]:
        return send(
            request, 200, {}, json.dumps([entry(file) for file in sorted(folder.iterdir())]).encode(), with_body
        )
    if is_api:
        return send(request, 200, {}, json.dumps({"id": model, "sha": commit}).encode(), with_body)
    if model in hub.gated:
        return send(request, 403, {"X-Error-Code": "GatedRepo"})
    file = folder / rest[2]
    if not file.is_file():
        return send(request, 404, {"X-Error-Code": "EntryNotFound"})
    headers = {"ETag": f'"{entry(file)["oid"]}"', "X-Repo-Commit": commit}
    return send(request, 200, headers, file.read_bytes(), with_body)


def entry(file: Path) -> dict[str, object]:
    content = file.read_bytes()
    return {"type": "file", "path": file.name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def send(
    request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes = b"", with_body: bool = True
) -> None:
    request.send_response(status)
    for header, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(header, value)
    request.end_headers()
    if with_body:
        request.wfile.write(body)
