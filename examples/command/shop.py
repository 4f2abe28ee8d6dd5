#!/usr/bin/env python3
"""A service whose version is switched without losing a request, and its three commands as docs/command.md has them.

shop.py serve PORT VERSION       the service: one process for each version, which get the same listening socket
shop.py apply|status VERSION     the commands; back is apply of the version before

A version is a file of versions/, the page that it shows. SHOP_STATE names the directory of what runs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSIONS = Path(__file__).parent / "versions"
STATE = Path(os.environ.get("SHOP_STATE", "/tmp/shop"))  # wanted, serving, port, pid
SIGNALS = {signal.SIGHUP, signal.SIGTERM}


def serve(port: str, version: str) -> None:
    """Start the version, and at each SIGHUP the one of the file wanted."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    listening = socket.create_server(("127.0.0.1", int(port)), backlog=256)
    listening.setblocking(False)  # where two versions listen, one of them gets the request
    worker = started(listening, version)
    for name, value in {"serving": version, "port": listening.getsockname()[1], "pid": os.getpid()}.items():
        put(name, value)
    while signal.sigwait(SIGNALS) == signal.SIGHUP:
        version = (STATE / "wanted").read_text()
        before, worker = worker, started(listening, version)
        if worker.poll() is not None:  # it did not start: the one before goes on
            worker = before
            continue
        ended(before)  # it answers what it has accepted; what waits in the socket is the next one's
        put("serving", version)
    ended(worker)


def started(listening: socket.socket, version: str) -> subprocess.Popen[str]:
    """The process of the version, once it can answer or has ended."""
    command = [sys.executable, __file__, "work", version, str(listening.fileno())]
    worker = subprocess.Popen(command, pass_fds=[listening.fileno()], stdout=subprocess.PIPE, text=True)
    if worker.stdout is None or worker.stdout.readline() != "ready\n":
        worker.wait()
    return worker


def ended(worker: subprocess.Popen[str]) -> None:
    """End a process, and wait for it."""
    worker.terminate()
    worker.wait()


def work(version: str, descriptor: str) -> None:
    """One version."""
    page = (VERSIONS / version).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            health = json.dumps({"status": "ok", "version": version}).encode()
            body = health if self.path == "/health" else page
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # its end waits for the answers

        def get_request(self) -> tuple[socket.socket, object]:
            connection, address = self.socket.accept()
            connection.setblocking(True)
            return connection, address

    server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=int(descriptor))

    # In a thread: it waits until the loop has passed on what it has accepted.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    print("ready", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()


def apply(version: str) -> None:
    """Have the service start the version, and wait until no other one serves."""
    if not (VERSIONS / version).is_file():
        sys.exit(f"there is no version {version}")
    put("wanted", version)
    os.kill(int((STATE / "pid").read_text()), signal.SIGHUP)
    deadline = time.monotonic() + 30
    while (STATE / "serving").read_text() != version:
        if time.monotonic() > deadline:
            sys.exit(f"version {version} does not serve after 30 s")
        time.sleep(0.05)


def status(version: str) -> None:
    """Ask the service itself: 0 for this version, 3 and its name for another one."""
    port = (STATE / "port").read_text()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        serves = json.load(answer)["version"]
    if serves != version:
        print(serves)
        sys.exit(3)


def put(name: str, value: object) -> None:
    """Write a file of the state whole: nobody reads half of it."""
    new = STATE / f".{name}"
    new.write_text(str(value))
    new.replace(STATE / name)


COMMANDS: dict[str, Callable[..., None]] = {"serve": serve, "work": work, "apply": apply, "status": status}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
