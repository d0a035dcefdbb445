"""A hub on loopback, as far as huggingface_hub asks one: repositories, commits of small files, downloads."""

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
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"


@dataclass
class Hub:
    """What the server holds and was asked.

    Attributes:
        address: to be set as HF_ENDPOINT.
        files: by repository and path.
        created: what was asked when a repository was made.
        asked: method and path of every request, in order.
    """

    address: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def commit_of(self, name: str) -> str:
        """The newest commit of a repository, made of its files."""
        content = b"".join(path.encode() + data for path, data in sorted(self.files[name].items()))
        return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def fake_hub() -> Iterator[Hub]:
    """A hub that runs until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        """Answers for `hub`."""

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing on standard error."""

        def answer(self, code: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def tell(self, value: Any, code: int = 200) -> None:
            self.answer(code, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def parts(self) -> list[str]:
            path = urlsplit(self.path).path
            hub.asked.append((self.command, path))
            return [unquote(part) for part in path.strip("/").split("/")]

        def do_POST(self) -> None:
            parts = self.parts()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if parts == ["api", "validate-yaml"]:
                return self.tell({"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.tell({"error": "Invalid username or password."}, 401)
            if parts == ["api", "repos", "create"]:
                asked = json.loads(body)
                hub.created.append(asked)
                name = f"{asked['organization']}/{asked['name']}"
                hub.files.setdefault(name, {})
                return self.tell({"url": f"{hub.address}/{name}", "name": name})
            name = "/".join(parts[2:4])
            if parts[4] == "preupload":
                files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
                return self.tell({"files": [file | {"shouldIgnore": False} for file in files]})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del hub.files[name][line["value"]["path"]]
            oid = hub.commit_of(name)
            return self.tell({"success": True, "commitOid": oid, "commitUrl": f"{hub.address}/{name}/commit/{oid}"})

        def do_GET(self) -> None:
            parts = self.parts()
            name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
            if name not in hub.files:
                return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            commit, files = hub.commit_of(name), hub.files[name]
            if parts[0] != "api":
                path = "/".join(parts[4:])
                tag = hashlib.sha1(files[path], usedforsecurity=False).hexdigest()
                return self.answer(200, files[path], {"ETag": f'"{tag}"', "X-Repo-Commit": commit})
            if "tree" in parts:
                entries = [
                    {"type": "file", "path": path, "size": len(data), "oid": "0"} for path, data in files.items()
                ]
                return self.tell(entries)
            siblings = [{"rfilename": path} for path in files]
            return self.tell({"id": name, "sha": commit, "private": True, "siblings": siblings})

        def do_HEAD(self) -> None:
            self.do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
