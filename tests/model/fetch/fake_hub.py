"""A hub and a plain web server on a local port, with the faults that networks have."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OLD, NEW = "a" * 40, "b" * 40
WEIGHTS = bytes(range(256)) * 4000  # 1 MB
HUB = {
    "owner/net": {"model/shard.bin": WEIGHTS, "model/index.json": b"{}", "README.md": b"not wanted"},
    "owner/wan": {"vae.pth": b"vae", "t5.pth": b"t5", "tokenizer/a.json": b"[1]"},
    "owner/mel": {"config.json": b"{ }"},
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server(ThreadingHTTPServer):
    """The hub's listing, its files, those of the web, and WEIGHTS under every other path."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.hub = {name: dict(files) for name, files in HUB.items()}
        self.web: dict[str, bytes] = {}  # by path
        self.newest = OLD
        self.supports_range = True
        self.drops: list[int] = []  # bytes after which the next answers break off
        self.statuses: list[int] = []  # of the next answers, which then have no content
        self.retry_after: str | None = None
        self.redirect_to: str | None = None
        self.listed: list[tuple[str, str]] = []  # repository, revision
        self.served: list[tuple[str, str | None, str | None]] = []  # path, Range, Authorization
        self.sized: list[str] = []  # paths that only the size was asked of
        self.tells_size = True

    def ranges(self, path: str) -> list[str | None]:
        return [range_ for served, range_, _ in self.served if served == path]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        path = self.path.split("?")[0]
        if self.server.statuses:
            self.answer(self.server.statuses.pop(0), b"")
        elif match := re.fullmatch(r"/api/models/(\w+/[\w-]+)(?:/revision/(\w+))?", path):
            self.list_repo(match[1], match[2] or self.server.newest)
        elif match := re.fullmatch(r"/(\w+/[\w-]+)/resolve/\w+/(.+)", path):
            self.send_file(match[2], self.server.hub[match[1]][match[2]])
        else:
            self.send_file(path, self.server.web.get(path, WEIGHTS))

    def do_HEAD(self):
        path = self.path.split("?")[0]
        self.server.sized.append(path)
        status = self.server.statuses.pop(0) if self.server.statuses else 302 if self.server.redirect_to else 200
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.redirect_to + self.path)
        if self.server.tells_size:
            self.send_header("Content-Length", str(len(self.server.web.get(path, WEIGHTS)) if status == 200 else 0))
        if self.server.retry_after:
            self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()

    def list_repo(self, repo, revision):
        self.server.listed.append((repo, revision))
        if repo not in self.server.hub:
            self.answer(404, b"")
            return
        siblings = []
        for name, content in self.server.hub[repo].items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sibling = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith((".bin", ".pth")):
                sibling |= {"blobId": "0" * 40}  # of the pointer, as on the hub
                sibling |= {"lfs": {"sha256": sha256(content), "size": len(content), "pointerSize": 130}}
            siblings.append(sibling)
        self.answer(200, json.dumps({"id": repo, "sha": revision, "siblings": siblings}).encode())

    def send_file(self, path, content):
        wanted = self.headers["Range"]
        self.server.served.append((path, wanted, self.headers["Authorization"]))
        if self.server.redirect_to:
            self.send_response(302)
            self.send_header("Location", self.server.redirect_to + self.path)
            self.end_headers()
        elif wanted and self.server.supports_range:
            self.answer(206, content[int(wanted.removeprefix("bytes=").removesuffix("-")) :])
        else:
            self.answer(200, content)

    def answer(self, status, content):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if self.server.retry_after:
            self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        is_file = "/api/" not in self.path
        self.wfile.write(content[: self.server.drops.pop(0) if is_file and self.server.drops else None])

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
