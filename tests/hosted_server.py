"""Services that finetune, on localhost: OpenAI's files, jobs, events and models, and Tinker's training protocol.

The real clients talk to them over HTTP. Both count what they are told to do, so that a test can say: not twice.
"""

import base64
import itertools
import json
import threading
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from tinker.proto import tinker_public_pb2 as pb


class _Handler(BaseHTTPRequestHandler):
    """Hands every request to the server's `answer(method, path, query, headers, body)`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for the acknowledgement of its header

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def _answer(self, method):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        with self.server.lock:
            given = self.server.answer(method, url.path, query, self.headers, body)
        self.server.before_sending(url.path, body)
        if given is None:  # the connection is cut
            self.close_connection = True
            return
        status, content, kind = given
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if url.path in self.server.last_of_a_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    last_of_a_connection = ("/api/v1/client/config",)
    """Tinker's client opens a connection for this request alone and leaves it to the server to close it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.RLock()
        self.requests = []

    def before_sending(self, path, body):
        """What happens between carrying out a request and answering it."""

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running(server):
    """The server, answering until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


JSON = "application/json"


class OpenAIServer(_Server):
    """OpenAI's side: files, fine-tuning jobs, their events and results, models.

    A job moves on by one status each time it is looked at. Lists are cut into pages of `page` items.

    Attributes:
        ends: shutdown dates of models by name, "tuned" for those that are finetuned here.
        fate: by run name, how its job ends: succeeded, failed or cancelled.
        error: what a failed job says.
        cut_after_creating: how many creations are carried out without an answer.
        busy: how many creations are refused with 429 and `busy_code`.
        deleted: finetuned models that are not there any more.
        endless: jobs stay running.
        hold_after: the answer to this creation is held back, and `held` set, until `release` is called.
        tables: whether there are result files.
    """

    def __init__(self, key, page=2, ends=None):
        super().__init__()
        self.key, self.page, self.ends = key, page, ends or {}
        self.files, self.jobs, self.uploads, self.created = {}, {}, 0, []
        self.fate, self.error = {}, {"code": "server_error", "message": "it broke", "param": None}
        self.cut_after_creating = self.busy = 0
        self.endless, self.tables, self.deleted, self.busy_code = False, True, set(), "rate_limit_exceeded"
        self.hold_after, self.held, self._released = None, threading.Event(), threading.Event()
        self.count = itertools.count(1)

    def answer(self, method, path, query, headers, body):
        self.requests.append((method, path))
        if headers.get("Authorization") != f"Bearer {self.key}":
            said = f"Incorrect API key provided: {headers.get('Authorization')}."
            return 401, {"error": {"message": said, "type": "invalid_request_error", "code": "invalid_api_key"}}, JSON
        match [method, *path.removeprefix("/v1/").split("/")]:
            case ["POST", "files"]:
                return self._upload(headers, body)
            case ["GET", "files"]:
                return self._page(self.files.values(), query)
            case ["GET", "files", name, "content"]:
                return 200, self.files[name]["content"], "application/octet-stream"
            case ["POST", "fine_tuning", "jobs"]:
                return self._create(json.loads(body))
            case ["GET", "fine_tuning", "jobs"]:
                return self._page(reversed(self.jobs.values()), query)
            case ["GET", "fine_tuning", "jobs", name]:
                return 200, self._look(self.jobs[name]), JSON
            case ["GET", "fine_tuning", "jobs", name, "events"]:
                return self._page(self._events(self.jobs[name]), query)
            case ["GET", "models", name]:
                return self._model(name)
        return 404, {"error": {"message": f"no {path}"}}, JSON

    def before_sending(self, path, body):
        if self.hold_after is not None and len(self.created) >= self.hold_after:
            self.held.set()
            self._released.wait(timeout=60)

    def release(self):
        self.hold_after = None
        self._released.set()

    def _page(self, items, query):
        items = list(items)
        start = next((n + 1 for n, item in enumerate(items) if item["id"] == query.get("after")), 0)
        some = [{k: v for k, v in item.items() if k != "content"} for item in items[start : start + self.page]]
        return 200, {"object": "list", "data": some, "has_more": start + self.page < len(items)}, JSON

    def _upload(self, headers, body):
        head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        parts = {part.get_param("name", header="content-disposition"): part for part in _parts(head + body)}
        self.uploads += 1
        file = self._file(parts["file"].get_filename(), parts["file"].get_payload(decode=True))
        file["purpose"] = parts["purpose"].get_payload(decode=True).decode()
        return 200, {k: v for k, v in file.items() if k != "content"}, JSON

    def _file(self, name, content):
        file = {"id": f"file-{next(self.count)}", "object": "file", "bytes": len(content), "created_at": 0}
        file |= {"filename": name, "purpose": "fine-tune-results", "status": "processed", "content": content}
        self.files[file["id"]] = file
        return file

    def _create(self, told):
        if self.busy:
            self.busy -= 1
            said = "you have reached the number of jobs that may run at once"
            return 429, {"error": {"message": said, "code": self.busy_code}}, JSON
        job = {"id": f"ftjob-{next(self.count)}", "object": "fine_tuning.job", "created_at": 0, "error": None}
        job |= {"fine_tuned_model": None, "finished_at": None, "hyperparameters": {}, "organization_id": "org-1"}
        job |= {"result_files": [], "status": "validating_files", "trained_tokens": None, "validation_file": None}
        job |= {name: told[name] for name in ("model", "training_file", "seed", "metadata", "method", "suffix")}
        self.jobs[job["id"]] = job
        self.created.append(told)
        if self.cut_after_creating:
            self.cut_after_creating -= 1
            return None
        return 200, job, JSON

    def _look(self, job):
        order = ["validating_files", "queued", "running"]
        if self.endless and job["status"] == "running":
            return job
        if job["status"] in order[:2]:
            job["status"] = order[order.index(job["status"]) + 1]
        elif job["status"] == "running":
            self._end(job)
        return job

    def _end(self, job):
        job["status"] = self.fate.get(job["metadata"]["run"], "succeeded")
        if job["status"] == "failed":
            job["error"] = self.error
        if job["status"] == "succeeded":
            job["fine_tuned_model"] = f"ft:{job['model']}:org:{job['suffix']}:{job['id'][6:]}"
            job["trained_tokens"] = 1234
            rows = "".join(f"{step},{loss},0.5\n" for step, loss in self._losses(job))
            content = base64.b64encode(f"step,train_loss,train_accuracy\n{rows}".encode())
            job["result_files"] = [self._file("step_metrics.csv", content)["id"]] if self.tables else []

    def _losses(self, job):
        return [(step, round(2 / step + 0.001 * job["seed"], 6)) for step in range(1, 5)]

    def _events(self, job):
        """Newest first. Events tell every other step only, and of a job that runs the first step alone."""
        told = {"running": 1, "succeeded": 4}.get(job["status"], 0)
        texts = [{"type": "message", "message": "Created fine-tuning job", "data": None}]
        for step, loss in self._losses(job)[:told:2]:
            data = {"step": step, "train_loss": loss, "total_steps": 4, "train_mean_token_accuracy": 0.5}
            texts.append({"type": "metrics", "message": f"Step {step}/4", "data": data})
        base = {"object": "fine_tuning.job.event", "created_at": 0, "level": "info"}
        return [{**base, **text, "id": f"ev-{job['id']}-{n}"} for n, text in enumerate(texts)][::-1]

    def _model(self, name):
        name = name.replace("%3A", ":")
        tuned = {job["fine_tuned_model"] for job in self.jobs.values()}
        if (name not in tuned and name not in self.ends) or name in self.deleted:
            return 404, {"error": {"message": f"the model {name} does not exist", "code": "model_not_found"}}, JSON
        end = self.ends.get(name, self.ends.get("tuned"))
        return 200, {"id": name, "object": "model", "created": 0, "owned_by": "org", "shutdown_date": end}, JSON


def _parts(message):
    return BytesParser().parsebytes(message).get_payload()


class TinkerServer(_Server):
    """Tinker's side of training: sessions, adapters, forward and backward passes, updates, saved states.

    An adapter here is a count of updates, and every token's log-probability is -1 / (1 + updates): so losses tell how
    many updates were really made before. Requests of a model must come in the order of their numbers.

    Attributes:
        adapters: by id: what it was made from, its updates, and every request that it got, in order.
        fail_after: requests for passes that are answered before one fails; None for all.
        gone: saved states that are not there any more.
        updates_that_waited: passes whose result was given before the update behind them had come.
    """

    def __init__(self, key):
        super().__init__()
        self.key, self.adapters, self.states, self.samplers, self.futures = key, {}, {}, {}, {}
        self.fail_after, self.gone, self.count, self.drop_logprobs = None, set(), itertools.count(1), False
        self.finished, self.updates_that_waited, self._updated = [], 0, {}

    def before_sending(self, path, body):
        """Holds a pass's result back until the update behind it has come: it should be on its way already."""
        if path == "/api/v1/retrieve_future":
            updated = self._updated.get(json.loads(body)["request_id"])
            if updated is not None and not updated.wait(timeout=30):
                self.updates_that_waited += 1

    def answer(self, method, path, query, headers, body):
        self.requests.append((method, path))
        if headers.get("X-API-Key") != self.key:
            return 401, {"message": f"the key {headers.get('X-API-Key')} is not known"}, JSON
        name = path.removeprefix("/api/v1/")
        if name == "forward_backward":
            return 200, self._promised_pass(body), JSON
        told = json.loads(body or b"{}")
        if name == "retrieve_future":
            kind, content = self.futures[told["request_id"]]
            return 200, content, kind
        if name.startswith("sessions/"):
            self.finished.append(told["reason"]["type"])
            return 200, {}, JSON
        return getattr(self, f"_{name.replace('/', '_')}", self._unknown)(told)

    def _unknown(self, told):
        return 404, {"message": "there is no such thing"}, JSON

    def _promise(self, result):
        """A future; the result is ready, and taken with retrieve_future."""
        name = f"request-{next(self.count)}"
        self.futures[name] = result if isinstance(result, tuple) else (JSON, result)
        return {"request_id": name}

    def _client_config(self, told):
        return 200, {}, JSON

    def _client_dynamic_config(self, told):
        return 200, {}, JSON

    def _telemetry(self, told):
        return 200, {"status": "accepted"}, JSON

    def _session_heartbeat(self, told):
        return 200, {"type": "session_heartbeat"}, JSON

    def _create_session(self, told):
        return 200, {"type": "create_session", "session_id": f"session-{next(self.count)}"}, JSON

    def _add(self, told, **fields):
        name = f"{told['session_id']}:train:{told['model_seq_id']}"
        self.adapters[name] = {"told": told, "requests": [], "updates": 0, "seq": 0, "passes": [], **fields}
        return name

    def _create_model(self, told):
        if told["base_model"] == "no/such":
            return 400, {"message": f"unknown base model no/such (key {self.key})"}, JSON
        return 200, self._promise({"model_id": self._add(told), "type": "create_model"}), JSON

    def _load_weights(self, told):
        if told["path"] in self.gone:
            error = {"error": f"there is no state {told['path']}", "category": "user"}
            return 200, self._promise(error), JSON
        name = self._add(told, updates=self.states[told["path"]], restored=told["optimizer"])
        return 200, self._promise({"path": told["path"], "model_id": name, "type": "load_weights"}), JSON

    def _get_info(self, told):
        data = {"arch": "qwen", "model_name": "tiny", "tokenizer_id": "tiny"}
        return 200, {"type": "get_info", "model_data": data, "model_id": told["model_id"]}, JSON

    def _next(self, told, kind):
        """The model that a request is for, which must be the request's turn."""
        adapter = self.adapters[told["model_id"]]
        assert told["seq_id"] == adapter["seq"] + 1, "a request came out of turn"
        adapter["seq"] += 1
        adapter["requests"].append((kind, told))
        return adapter

    def _promised_pass(self, body):
        result = self._pass(body)
        promise = self._promise(result)
        if isinstance(result, tuple):
            adapter = self.adapters[pb.ForwardBackwardRequest.FromString(body).model_id]
            adapter["behind"] = self._updated[promise["request_id"]] = threading.Event()
        return promise

    def _pass(self, body):
        told = pb.ForwardBackwardRequest.FromString(body)
        adapter = self._next({"model_id": told.model_id, "seq_id": told.seq_id}, "pass")
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                return {"error": f"a worker was lost (key {self.key})", "category": "server"}
        rows = [_row(datum) for datum in told.data]
        adapter["passes"].append({"loss": told.loss_fn, "rows": rows})
        value = -1 / (1 + adapter["updates"])
        weights = sum(float(row["weights"].sum()) for row in rows)
        output = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord", metrics={"loss:sum": -value * weights})
        record = pb.ArrayRecord(num_datums=len(rows))
        if not self.drop_logprobs:
            lengths = [len(row["target_tokens"]) for row in rows]
            field = record.fields["logprobs"]
            field.dtype = pb.DTYPE_FLOAT32
            field.offsets = (4 * np.cumsum([0, *lengths], dtype=np.int64)).tobytes()
            field.data = np.full(sum(lengths), value, dtype=np.float32).tobytes()
        output.loss_fn_outputs.append(record)
        return "application/x-protobuf", output.SerializeToString()

    def _optim_step(self, told):
        adapter = self._next(told, "update")
        adapter["updates"] += 1
        if "behind" in adapter:
            adapter["behind"].set()
        return 200, self._promise({"metrics": {}}), JSON

    def _save_weights(self, told):
        path = f"tinker://{told['model_id']}/weights/{told['path']}"
        self.states[path] = self._next(told, "state")["updates"]
        return 200, self._promise({"path": path, "type": "save_weights"}), JSON

    def _save_weights_for_sampler(self, told):
        path = f"tinker://{told['model_id']}/sampler_weights/{told['path']}"
        self.samplers[path] = self._next(told, "sampler")["updates"]
        return 200, self._promise({"path": path, "type": "save_weights_for_sampler"}), JSON


def _row(datum):
    (chunk,) = datum.model_input
    kinds = {"target_tokens": np.int64, "weights": np.float32}
    inputs = {name: np.frombuffer(datum.loss_fn_inputs[name].dense, dtype=kind) for name, kind in kinds.items()}
    return {"tokens": np.frombuffer(chunk.encoded_text.tokens, dtype=np.int32), **inputs}
