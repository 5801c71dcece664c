"""A server that answers what ``huggingface_hub`` asks of the Hub when a folder is pushed, and keeps what it gets.

It has no rules but the Hub's own for these calls: a token, repositories, a card whose front matter is checked, large
files by Git LFS under their SHA-256, and commits that name them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["TASKS", "TOKEN", "FakeHub", "fake_hub"]

TOKEN = "hf_of_this_test"
TASKS = ("image-classification", "tabular-regression")
"""Pipeline tags that it takes; the Hub takes more."""


@dataclass
class FakeHub:
    """What the server has."""

    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    """Repositories, each with whether it is private."""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Content of each repository."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256."""
    calls: list[str] = field(default_factory=list)
    """Method and path of each request."""


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Start the server on a free port of this machine; it ends with the context."""
    state = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""

    def do_GET(self) -> None:
        """Whether a model is there."""
        self._answered("GET", b"")

    def do_POST(self) -> None:
        """Everything that is told of files, and commits."""
        self._answered("POST", self._body())

    def do_PUT(self) -> None:
        """The content of a large file."""
        self._answered("PUT", self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answered(self, method: str, body: bytes) -> None:
        path = self.path.partition("?")[0]
        self.state.calls.append(f"{method} {path}")
        # what a large file is put to is signed in its address, and the check of a card is anybody's
        free = path.startswith("/lfs/") or path == "/api/validate-yaml"
        if not free and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, {"error": "Invalid username or password."})
            return
        status, answer = self._answer(method, path.strip("/").split("/"), body)
        self._send(status, answer)

    def _answer(self, method: str, parts: list[str], body: bytes) -> tuple[int, Any]:
        state = self.state
        match method, parts:
            case "GET", ["api", "models", user, name]:
                key = f"{user}/{name}"
                if key not in state.private:
                    return 404, {"error": "Repository not found"}
                return 200, {"id": key, "private": state.private[key], "siblings": []}
            case "POST", ["api", "repos", "create"]:
                asked = json.loads(body)
                key = "/".join(filter(None, (asked.get("organization") or "me", asked["name"])))
                # huggingface_hub 2 says it by name, 1 by a flag
                state.private[key] = asked.get("visibility") == "private" or bool(asked.get("private"))
                state.files[key] = {}
                return 200, {"url": f"{state.url}/{key}", "name": key, "id": key}
            case "POST", ["api", "validate-yaml"]:
                import yaml  # which comes with huggingface_hub, and without it no test asks

                matter = yaml.safe_load(json.loads(body)["content"].split("---")[1])
                if matter.get("pipeline_tag") not in (None, *TASKS):
                    return 400, {"errors": [{"message": f'"pipeline_tag" must be one of {TASKS}'}], "warnings": []}
                return 200, {"errors": [], "warnings": []}
            case "POST", ["api", "models", _, _, "preupload", "main"]:
                files = json.loads(body)["files"]
                return 200, {"files": [self._mode(file["path"]) for file in files]}
            case "POST", [user, name, "info", "lfs", "objects", "batch"]:
                return 200, {"transfer": "basic", "objects": [self._upload(o) for o in json.loads(body)["objects"]]}
            case "PUT", ["lfs", oid]:
                if hashlib.sha256(body).hexdigest() != oid:
                    return 400, {"error": "not what was announced"}
                state.objects[oid] = body
                return 200, {}
            case "POST", ["api", "models", user, name, "commit", "main"]:
                return self._commit(f"{user}/{name}", body)
        return 404, {"error": f"no such call: {method} {parts}"}

    @staticmethod
    def _mode(path: str) -> dict[str, Any]:
        large = path.endswith((".ep", ".whl", ".safetensors", ".engine", ".onnx"))
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        there = wanted["oid"] in self.state.objects
        upload = {"upload": {"href": f"{self.state.url}/lfs/{wanted['oid']}", "header": {}}}
        return {"oid": wanted["oid"], "size": wanted["size"], **({} if there else {"actions": upload})}

    def _commit(self, key: str, body: bytes) -> tuple[int, Any]:
        if key not in self.state.private:
            return 404, {"error": "Repository not found"}
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                self.state.files[key][value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                content = self.state.objects[value["oid"]]
                assert len(content) == value["size"]
                self.state.files[key][value["path"]] = content
        oid = hashlib.sha1(body).hexdigest()
        url = f"{self.state.url}/{key}/commit/{oid}"
        return 200, {"success": True, "commitOid": oid, "commitUrl": url, "pullRequestUrl": None}

    def _send(self, status: int, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
