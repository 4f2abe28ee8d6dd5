"""One HTTP request, with nothing behind the caller's back: no redirect followed, no proxy, no retry, no cookie jar."""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import OperatorError
from ..findings import observed, say
from ..system.redaction import first_line

# An answer that never ends, a byte at a time or without end, must not hold a run, nor fill the memory of a host.
_WHOLE = 4  # how many times as long as one step the whole answer may take
_LARGEST = 1 << 26  # bytes
_PART = 1 << 16
_PORTS = {"http": 80, "https": 443}


class NoAnswer(Exception):
    """There was no complete answer.

    ``kind`` is one of dns, refused, reset, timeout, tls, cut, malformed, network, too_large.
    """

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {reason}")


@dataclass(frozen=True)
class Answer:
    """A complete answer; header names in lower case, in the order they came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self) -> Any:
        """The body as JSON, or None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def line(self, secrets: tuple[str, ...] = ()) -> str:
        """Status and first line of the body for a person: cut, without secrets."""
        return f"{self.status} {first_line(self.body.decode('utf-8', 'replace'), secrets)}".strip()


@dataclass(frozen=True)
class Place:
    """A URL taken apart: where to connect and what to ask for."""

    scheme: str
    host: str
    port: int | None
    target: str

    @property
    def authority(self) -> str:
        """What the header Host names: an IPv6 address in brackets, without its zone; a port that is not the usual."""
        name = self.host.partition("%")[0]
        host = f"[{name}]" if ":" in name else name
        return host if self.port in (None, _PORTS[self.scheme]) else f"{host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """The header Host where http.client would name the zone, which means nothing elsewhere (RFC 6874)."""
        return {"Host": self.authority} if "%" in self.host else {}


def place(url: str) -> Place:
    """Take ``url`` apart. Raises OperatorError when it is not an http or https address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise OperatorError(
            observed(
                "AMO-4302",
                "{first_line} is not an address that can be asked.",
                first_line=first_line(url) or say("An empty text"),
            ),
            expected=say("http:// or https://, a host, without user name and password."),
            next_step=say("correct the address in the inventory."),
        )
    host = parts.hostname.replace("%25", "%") if ":" in parts.hostname else parts.hostname  # a zone
    return Place(parts.scheme, host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


class Client:
    """A connection to one origin. Without keep-alive every request opens its own."""

    # A server closes an idle connection without asking (Node after 5 s), and the next request on it would fail for a
    # reason that says nothing about the server. A pool of connections that is any good lets go of them first.
    IDLE_S = 2.0

    def __init__(self, url: str, *, timeout_s: float, keepalive: bool = False) -> None:
        origin = place(url)
        port = origin.port or _PORTS[origin.scheme]  # without one, ::1 would be : at port 1
        self._timeout_s = timeout_s
        if origin.scheme == "https":
            context = ssl.create_default_context()
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                origin.host, port, timeout=timeout_s, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(origin.host, port, timeout=timeout_s)
        self._keepalive, self._headers = keepalive, origin.headers
        self._last_used = 0.0

    def connect(self) -> None:
        """Open the connection now rather than with the first request. Raises NoAnswer."""
        try:
            self._connection.connect()
        except OSError as failure:
            raise _no_answer(failure) from failure
        self._last_used = time.monotonic()

    def close(self) -> None:
        self._connection.close()

    def _said_goodbye(self) -> bool:
        """Whether the server has closed the idle connection: browsers and proxies look before they send on it."""
        idle: socket.socket | None = self._connection.sock
        if idle is None:
            return False
        waiting = select.poll()
        waiting.register(idle, select.POLLIN)
        return bool(waiting.poll(0))

    def request(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Send one request, read the whole answer. Raises NoAnswer, also for an answer that goes on and on."""
        if self._keepalive and (time.monotonic() - self._last_used > self.IDLE_S or self._said_goodbye()):
            self._connection.close()
        wanted = {"Connection": "keep-alive" if self._keepalive else "close", "User-Agent": "at-most-one"}
        ends = time.monotonic() + _WHOLE * self._timeout_s
        try:
            self._connection.request(method, target, body=body, headers={**wanted, **self._headers, **(headers or {})})
            response = self._connection.getresponse()
            received = tuple((k.lower(), v) for k, v in response.getheaders())
            answer = Answer(response.status, received, _body(response, ends))
        except NoAnswer:
            self._connection.close()
            raise
        except (OSError, http.client.HTTPException, UnicodeError) as failure:  # the last: a path that is not ASCII
            self._connection.close()
            raise _no_answer(failure) from failure
        self._last_used = time.monotonic()
        if not self._keepalive:
            self._connection.close()
        return answer


def fetch(
    method: str,
    url: str,
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """One request on a connection of its own. ``timeout_s`` bounds each step, and 4 times that all. Raises NoAnswer."""
    client = Client(url, timeout_s=timeout_s)
    return client.request(method, place(url).target, headers, body)


def _body(response: http.client.HTTPResponse, ends: float) -> bytes:
    """The whole body, which has to be there at ``ends`` (monotonic). What has come is taken, not waited for."""
    parts, size = list[bytes](), 0
    while part := response.read1(_PART):
        parts.append(part)
        size += len(part)
        if size > _LARGEST:
            raise NoAnswer("too_large", f"more than {_LARGEST} bytes")
        if time.monotonic() > ends:
            raise NoAnswer("timeout", f"{size} bytes so far, and no end")
    if response.length:  # the connection was closed before
        raise http.client.IncompleteRead(b"".join(parts), response.length)
    response.close()
    return b"".join(parts)


def _no_answer(failure: BaseException) -> NoAnswer:
    kinds: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
        (socket.gaierror, "dns"),
        (ConnectionRefusedError, "refused"),
        ((ConnectionError, http.client.RemoteDisconnected), "reset"),
        (TimeoutError, "timeout"),
        (ssl.SSLError, "tls"),
        (http.client.IncompleteRead, "cut"),
        ((http.client.HTTPException, UnicodeError), "malformed"),
        (OSError, "network"),
    )
    kind = next(name for types, name in kinds if isinstance(failure, types))
    return NoAnswer(kind, first_line(str(failure)) or type(failure).__name__)
