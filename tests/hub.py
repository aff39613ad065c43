"""A stand-in of the hub's HTTP API that keeps what is uploaded, for tests offline."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_test"
LARGE = (".safetensors", ".gguf")
"""Endings of the files that the hub keeps as LFS objects."""


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@dataclass
class StandIn:
    """The hub's state. url: where it answers."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """LFS objects by their SHA-256."""
    cards: list[str] = field(default_factory=list)
    """Model cards that were validated."""


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """A server on a free port of this machine; it stops on exit."""
    state = StandIn()

    class Handler(_Handler):
        hub = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self._known():
            return
        if self.path.startswith("/api/whoami"):
            self._send({"name": "user", "type": "user", "auth": {"accessToken": {"role": "write"}}})
            return
        name = self.path.removeprefix("/api/models/").split("?")[0]
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._send({"error": "Repository not found"}, 404)
            return
        siblings = [{"rfilename": path} for path in repository.files]
        self._send({"id": name, "private": repository.private, "tags": [], "siblings": siblings})

    def do_PUT(self) -> None:
        self.hub.objects[self.path.rpartition("/")[2]] = self._body()
        self._send({})

    def do_POST(self) -> None:
        body = self._body()
        if not self._known():
            return
        if self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self.hub.cards.append(json.loads(body)["content"])
            self._send({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            self._preupload(json.loads(body))
        elif self.path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif "/commit/" in self.path:
            self._commit(body)
        else:
            self._send({"error": f"not in the stand-in: {self.path}"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'user'}/{asked['name']}"
        if name in self.hub.repositories:
            self._send({"error": "You already created this repo", "url": self._url(name)}, 409)
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories[name] = Repository(private)
        self._send({"url": self._url(name), "name": name, "id": name})

    def _preupload(self, asked: dict[str, Any]) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in asked["files"]
        ]
        self._send({"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        self._send({"transfer": "basic", "objects": objects}, kind="application/vnd.git-lfs+json")

    def _commit(self, body: bytes) -> None:
        found = re.match(r"/api/models/([^/]+/[^/]+)/commit/", self.path)
        assert found is not None
        repository = self.hub.repositories[found[1]]
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repository.messages.append(value["summary"])
            elif entry["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
        oid = f"{len(repository.messages):040x}"
        self._send({"commitUrl": f"{self._url(found[1])}/commit/{oid}", "commitOid": oid})

    def _url(self, name: str) -> str:
        return f"{self.hub.url}/{name}"

    def _known(self) -> bool:
        """Answer 401 to a request without the token."""
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._send({"error": "Invalid username or password."}, 401)
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, answer: Any, status: int = 200, kind: str = "application/json") -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass
