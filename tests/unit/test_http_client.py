"""Requests to servers that end their answers well, too early or never."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from at_most_one.http import client
from at_most_one.http.client import Client, NoAnswer, fetch

LASTS_S = 4.0  # so long an endless answer goes on here: a test of a client that waits for its end fails, and ends
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def answering(beginning: bytes, again: bytes = b"", every_s: float = 0.0) -> Iterator[str]:
    """The address of a server that answers with these bytes, and then with the others again and again."""
    gate = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        caller, _ = gate.accept()
        with caller:
            caller.recv(65_536)
            began = time.monotonic()
            try:
                caller.sendall(beginning)
                while again and time.monotonic() - began < LASTS_S and not ended.wait(every_s):
                    caller.sendall(again)
            except OSError:
                return

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{gate.getsockname()[1]}/"
    finally:
        ended.set()
        serving.join(5)
        gate.close()


@pytest.mark.parametrize(
    ("beginning", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
    ],
)
def test_an_answer_that_comes_a_byte_at_a_time_is_none(beginning: bytes, again: bytes) -> None:
    """Each step is in time; the whole is not, and a run must not wait for it."""
    began = time.monotonic()
    with answering(beginning, again, every_s=0.05) as url, pytest.raises(NoAnswer) as failure:
        fetch("GET", url, timeout_s=0.25)
    assert failure.value.kind == "timeout"
    assert time.monotonic() - began < LASTS_S


def test_an_answer_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LARGEST", 1_000_000)
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536) as url, pytest.raises(NoAnswer) as failure:
        fetch("GET", url, timeout_s=10)
    assert failure.value.kind == "too_large"


@pytest.mark.parametrize("beginning", [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", CHUNKED + b"a\r\nabc"])
def test_an_answer_that_is_cut_off_is_none(beginning: bytes) -> None:
    with answering(beginning) as url, pytest.raises(NoAnswer) as failure:
        fetch("GET", url, timeout_s=5)
    assert failure.value.kind == "cut"


@pytest.mark.parametrize(
    ("beginning", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
    ],
)
def test_a_whole_answer_is_read_whole(beginning: bytes, body: bytes) -> None:
    with answering(beginning) as url:
        assert fetch("GET", url, timeout_s=5).body == body


def test_a_kept_connection_brings_one_answer_after_the_other() -> None:
    connections = list[object]()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connections.append(self.client_address)
            super().setup()

        def do_GET(self) -> None:
            body = self.path.encode() * 20_000
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asking = Client(f"http://127.0.0.1:{server.server_port}", timeout_s=5, keepalive=True)
        assert asking.request("GET", "/a").body == b"/a" * 20_000
        assert asking.request("HEAD", "/b").body == b""
        assert asking.request("GET", "/c").body == b"/c" * 20_000
        asking.close()
        server.shutdown()
    assert len(connections) == 1


def test_a_path_that_is_not_ascii_is_no_answer() -> None:
    with pytest.raises(NoAnswer) as failure:
        fetch("GET", "http://127.0.0.1:1/상태", timeout_s=5)
    assert failure.value.kind == "malformed"


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_an_address_of_ipv6_without_a_port_has_the_usual_one(scheme: str, port: int) -> None:
    connection = Client(f"{scheme}://[::1]/", timeout_s=1)._connection
    assert (connection.host, connection.port) == ("::1", port)
