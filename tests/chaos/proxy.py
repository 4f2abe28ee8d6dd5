"""A proxy between the modules and the server, which knows each statement and strikes in the middle of one of them.

It speaks as much of the protocol as that takes: https://www.postgresql.org/docs/current/protocol-message-formats.html
psycopg2 sends every statement as a simple Query. Prisma is let through unseen: its own kill is the controller's.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

_SSL, _GSS = 80877103, 80877104
_OURS = b"at-most-one"


def shape(statement: str) -> str:
    """A statement without what differs from run to run: literals, numbers, and names that hold one."""
    bare = re.sub(r"'(?:[^']|'')*'", "?", statement)
    return " ".join(re.sub(r"\b[0-9a-f]{6,}\b|\d+", "?", bare).split())[:300]


@dataclass
class Strike:
    """Where to strike, and how; ``hit`` once it has."""

    task: int
    shape: str
    blow: Callable[[int], None]  # gets the backend's pid
    hit: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Listens on a port of its own; ``seen`` has every statement with the number of the task that sent it."""

    def __init__(self, server: tuple[str, int], current_task: Callable[[], int], address: str = "127.0.0.1") -> None:
        self.server, self.current_task = server, current_task
        self.seen: list[tuple[int, str]] = []
        self.strike: Strike | None = None
        self.listener = socket.create_server((address, 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, struct.error), client:
            head = _exactly(client, 8)
            while struct.unpack("!II", head)[1] in (_SSL, _GSS):
                client.sendall(b"N")
                head = _exactly(client, 8)
            start = head + _exactly(client, struct.unpack("!I", head[:4])[0] - 8)
            with socket.create_connection(self.server) as server:
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.sendall(start)
                _Session(self, client, server, ours=_OURS in start).run()


class _Session:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket, *, ours: bool) -> None:
        self.proxy, self.client, self.server, self.ours = proxy, client, server, ours
        self.pid, self.mute = 0, False

    def run(self) -> None:
        back = threading.Thread(target=self._answers, daemon=True)
        back.start()
        try:
            while True:
                kind, body = _message(self.client)
                statement = body[4:-1].decode(errors="replace") if kind == b"Q" and self.ours else None
                if statement is not None:
                    task, what = self.proxy.current_task(), shape(statement)
                    self.proxy.seen.append((task, what))
                    strike = self.proxy.strike
                    if strike and not strike.hit.is_set() and (strike.task, strike.shape) == (task, what):
                        strike.hit.set()
                        self.mute = True
                        self.server.sendall(kind + body)
                        strike.blow(self.pid)
                        return  # nobody hears whether it was done
                self.server.sendall(kind + body)
        finally:
            for end in (self.client, self.server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join(10)

    def _answers(self) -> None:
        with contextlib.suppress(OSError, EOFError, struct.error):
            while not self.pid:
                kind, body = _message(self.server)
                if kind == b"K":
                    self.pid = struct.unpack("!I", body[4:8])[0]
                self.client.sendall(kind + body)
            while (data := self.server.recv(65536)) and not self.mute:
                self.client.sendall(data)
        if not self.mute:  # otherwise not before the blow was struck
            with contextlib.suppress(OSError):
                self.client.shutdown(socket.SHUT_RDWR)


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    """One message: its kind, and its length and content."""
    head = _exactly(source, 5)
    return head[:1], head[1:] + _exactly(source, struct.unpack("!I", head[1:])[0] - 4)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
