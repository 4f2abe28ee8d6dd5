"""A connection pooler in transaction mode, as small as can be: it lends its server connections per transaction.

It accepts everybody, ignores the settings a client asks for at connect (PgBouncer's ignore_startup_parameters), or
refuses them as PgBouncer does by default, and speaks the simple query protocol only, as psycopg2 does.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from types import TracebackType

import psycopg2
from at_most_one.database import Connection, Login

_SSL_REQUEST = 80877103
_SETTINGS = "-c search_path= -c row_security=off"  # what at_most_one.database asks for, as far as preflight looks


class Pooler:
    """``with Pooler(login) as port``. ``settings_in_force``: as if the pool's own connections had been given them."""

    def __init__(self, login: Login, *, settings_in_force: bool = False, refuses_settings: bool = False) -> None:
        options = {"options": _SETTINGS} if settings_in_force else {}
        self.refuses_settings = refuses_settings
        self.opened: list[Connection] = [
            psycopg2.connect(host=login.host, port=login.port, dbname=login.dbname, user=login.user,
                             password=login.password, sslmode="disable", gssencmode="disable", **options)
            for _ in range(4)
        ]  # fmt: skip
        # psycopg2 has logged in; from here on its sockets are ours.
        self.idle = [socket.socket(fileno=os.dup(connection.fileno())) for connection in self.opened]
        for server in self.idle:
            server.setblocking(True)
        self.listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._accept, daemon=True).start()
        return int(self.listener.getsockname()[1])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.listener.close()
        for connection in self.opened:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            if not self._greet(client):
                return
            server = None
            while (message := _message(client)) and message[:1] != b"X":
                server = server or self.idle.pop()  # the last one that came back, as poolers do
                server.sendall(message)
                while (answer := _message(server))[:1] != b"Z":
                    client.sendall(answer)
                client.sendall(answer)
                if answer[-1:] == b"I":  # outside a transaction: anybody may have it
                    self.idle.append(server)
                    server = None
            if server:
                server.sendall(b"Q" + struct.pack("!I", 13) + b"ROLLBACK\0")
                while _message(server)[:1] != b"Z":
                    pass
                self.idle.append(server)

    def _greet(self, client: socket.socket) -> bool:
        while True:
            (length,) = struct.unpack("!I", _exactly(client, 4))
            startup = _exactly(client, length - 4)
            if struct.unpack("!I", startup[:4]) != (_SSL_REQUEST,):
                break
            client.sendall(b"N")
        if self.refuses_settings and b"options\0" in startup:
            words = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0"
            client.sendall(b"E" + struct.pack("!I", 4 + len(words)) + words)
            return False
        settings = {"server_version": "15.0", "client_encoding": "UTF8", "DateStyle": "ISO, YMD",
                    "standard_conforming_strings": "on", "integer_datetimes": "on"}  # fmt: skip
        client.sendall(b"R" + struct.pack("!II", 8, 0))
        for name, value in settings.items():
            text = f"{name}\0{value}\0".encode()
            client.sendall(b"S" + struct.pack("!I", 4 + len(text)) + text)
        client.sendall(b"K" + struct.pack("!III", 12, 1, 1) + b"Z" + struct.pack("!I", 5) + b"I")
        return True


def _message(peer: socket.socket) -> bytes:
    head = _exactly(peer, 5)
    return head + _exactly(peer, struct.unpack("!I", head[1:])[0] - 4) if head else b""


def _exactly(peer: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        try:
            part = peer.recv(size - len(received))
        except OSError:
            part = b""
        if not part:
            return b""
        received += part
    return received
