"""A real server that takes notifications: what came, at which path; or one that does not behave."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Listener(http.server.ThreadingHTTPServer):
    """Listens on a free loopback port and keeps every message: path, headers, body."""

    daemon_threads = True

    def __init__(self, status: int = 200, location: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.location = status, location
        self.messages: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for where, _, body in list(self.messages) if where == path]

    def events(self, run_id: str, path: str = "/webhook") -> list[dict[str, Any]]:
        """What a program has been told of one run, in the order in which it came."""
        return [body for body in self.bodies(path) if body.get("run_id") == run_id]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Listener

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.messages.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        self.wfile.write(b"ok")


@contextmanager
def listening(status: int = 200, location: str = "") -> Iterator[Listener]:
    server = Listener(status, location)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def misbehaving(kind: str) -> Iterator[str]:
    """The address of one that does not answer: dead, silent (takes the connection), dripping (a byte now and then)."""
    gate = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{gate.getsockname()[1]}"
    if kind == "dead":
        gate.close()
        yield url
        return
    ended = threading.Event()

    def serve() -> None:
        held = []
        while not ended.is_set():
            try:
                caller, _ = gate.accept()
            except OSError:
                return
            held.append(caller)
            if kind == "dripping":
                threading.Thread(target=_drip, args=(caller, ended), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield url
    finally:
        ended.set()
        gate.close()


def _drip(caller: socket.socket, ended: threading.Event) -> None:
    """A step never takes long enough for a timeout of each step, and the whole never ends."""
    try:
        caller.sendall(b"HTTP/1.1 200 OK\r\nX-")
        while not ended.wait(0.2):
            caller.sendall(b"a")
    except OSError:
        return
