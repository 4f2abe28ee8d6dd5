"""A process is held at whatever address it has, by a request that an HTTP server accepts."""

from __future__ import annotations

import http.client
import socket
import threading

import pytest
from at_most_one.http.served_build import Probe
from at_most_one.pm2 import handover


@pytest.mark.parametrize(
    ("url", "host", "port", "named"),
    [
        ("http://[fe80::1%25eth0]:3000/health", "fe80::1%eth0", 3000, "[fe80::1]:3000"),
        ("http://[::1]/health", "::1", 80, "[::1]"),
        ("http://127.0.0.1:3000/health", "127.0.0.1", 3000, "127.0.0.1:3000"),
    ],
)
def test_both_requests_name_the_host_as_http_wants_it(
    monkeypatch: pytest.MonkeyPatch, url: str, host: str, port: int, named: str
) -> None:
    asked = list[str]()
    gate = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        caller, _ = gate.accept()
        with caller:
            asked.append(caller.recv(65_536).decode())
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-app-pid: 7\r\n\r\n")
            asked.append(caller.recv(65_536).decode())

    def connect(connection: http.client.HTTPConnection) -> None:
        connection.sock = socket.create_connection(gate.getsockname(), timeout=5)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", connect)
    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    connection = handover._begin(Probe(url, pid_header="x-app-pid"), 7)
    serving.join(5)
    gate.close()

    assert connection is not None
    connection.close()
    assert (connection.host, connection.port) == (host, port)
    assert len(asked) == 2
    for request in asked:
        assert request.startswith("GET /health HTTP/1.1\r\n")
        assert f"\r\nHost: {named}\r\n" in request
