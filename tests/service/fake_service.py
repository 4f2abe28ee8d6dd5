"""A small real HTTP server with the endpoints of the service, NextAuth's sign-in, and faults to choose from.

It stands where no Next.js application can: its answers are the ones measured on the real application, right and wrong.
"""

from __future__ import annotations

import http.server
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

SESSION_COOKIE = "__Secure-next-auth.session-token"
CSRF_COOKIE = "__Host-next-auth.csrf-token"
PASSWORD = "p4ss, w0rd;"
TOKEN = "bearer-of-good-news"


@dataclass
class Behaviour:
    """What is right or wrong with the service."""

    health: tuple[int, dict[str, str]] = (200, {"status": "healthy"})
    enforced: bool = True  # the unique index
    loser: int = 409  # what a creation answers that the index refused; 500 where the application does not map it
    second: str = "resume"  # resume | refuse: what the application answers to the owner's second creation
    cancel: int = 200
    joins: bool = False  # a loser gets the winner's session, so nobody is refused
    no_loser: bool = False  # close the loser's connection without an answer
    monitoring: tuple[int, dict[str, Any]] = (200, {"success": True, "data": {"total": 0, "duplicates": []}})
    creation: int | None = None  # answer every creation with this status
    drop_first_creation: bool = False  # open the session, then close the connection without an answer
    page: int = 200  # what / answers; 307 where it leads to a language or a login
    csrf: int = 200
    listing: int = 200  # what the list of sessions answers to somebody whom the service knows
    delay_s: float = 0.0  # how long every answer takes


@dataclass
class State:
    """The open sessions: id to owner and equipment."""

    open: dict[str, tuple[str, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))


class FakeService(http.server.ThreadingHTTPServer):
    """Listens on a free loopback port; ``behaviour`` may be changed between requests."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour, self.state = Behaviour(), State()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[FakeService]:
        """A service that answers until the end of the block."""
        made = cls()
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()
            made.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FakeService
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(self.server.behaviour.page)

    def do_GET(self) -> None:
        self._note()
        behaviour = self.server.behaviour
        if self.path == "/api/health":
            self._answer(*behaviour.health)
        elif self.path == "/":
            self._answer(behaviour.page, {})
        elif self.path == "/api/auth/csrf":
            cookies = [f"{CSRF_COOKIE}=abc%7Chash; Path=/; HttpOnly; Secure; SameSite=Lax"]
            self._answer(behaviour.csrf, {"csrfToken": "abc"}, cookies)
        elif self.path == "/api/auth/session":
            who = self._who()
            self._answer(200, {"user": {"email": who}} if who else {})
        elif self.path.startswith("/api/monitoring/"):
            self._answer(401, {"error": "Unauthorized"}) if not self._who() else self._answer(*behaviour.monitoring)
        else:
            self._answer(behaviour.listing if self._who() else 401, {"sessions": []})

    def do_POST(self) -> None:
        self._note()
        content = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path == "/api/auth/callback/credentials":
            self._sign_in(parse_qs(content))
            return
        who, state = self._who(), self.server.state
        if not who:
            self._answer(401, {"error": "Unauthorized"})
        elif self.path.endswith("/cancel"):
            assert "reason" in json.loads(content)  # the real application reads it without looking
            if self.server.behaviour.cancel == 200:
                state.open.pop(self.path.split("/")[-2], None)
            self._answer(self.server.behaviour.cancel, {"error": "cancel"})
        else:
            self._create(who, json.loads(content)["equipment_serial"])

    def _create(self, who: str, serial: str) -> None:
        behaviour, state = self.server.behaviour, self.server.state
        if behaviour.creation:
            self._answer(behaviour.creation, {"error": f"no, Bearer {TOKEN}", "code": "P2002"})
            return
        found = next((one for one, (_, device) in state.open.items() if device == serial), None)
        if found and state.open[found][0] != who:
            self._answer(409, {"error": "already open"})
            return
        if found and behaviour.second == "refuse":
            self._answer(409, {"error": "already open"})
            return
        if found and behaviour.second == "resume":
            self._answer(200, {"session": {"id": found, "status": "active", "notes": "not for a report"}})
            return
        time.sleep(0.05)  # between the application's look and its insert there is time for everybody
        with state.lock:
            taken = any(device == serial for _, device in state.open.values())
            if not (taken and behaviour.enforced):
                identifier = f"session-{next(state.numbers)}"
                state.open[identifier] = (who, serial)
        if taken and behaviour.joins:
            self._answer(200, {"session": {"id": next(iter(state.open))}})
        elif taken and behaviour.enforced and behaviour.no_loser:
            self.close_connection = True
            self.connection.close()
        elif taken and behaviour.enforced:
            self._answer(behaviour.loser, {"error": "Unique constraint failed"})
        elif behaviour.drop_first_creation:
            behaviour.drop_first_creation = False
            self.close_connection = True
            self.connection.close()
        else:
            self._answer(201, {"session": {"id": identifier, "status": "active", "notes": "not for a report"}})

    def _sign_in(self, form: dict[str, list[str]]) -> None:
        right = (
            form.get("csrfToken") == ["abc"]
            and f"{CSRF_COOKIE}=abc%7Chash" in self.headers.get("Cookie", "")
            and form.get("password") == [PASSWORD]
        )
        if right:
            who = form["email"][0]
            cookies = [
                f"{SESSION_COOKIE}.0=jwt-{who}; Path=/; HttpOnly; Secure",
                f"{SESSION_COOKIE}.1=tail; Path=/; HttpOnly; Secure",
                "next-auth.callback-url=; Max-Age=0",
            ]
            self._answer(200, {"url": self.server.url}, cookies)
        else:
            self._answer(401, {"url": f"{self.server.url}/api/auth/error?error=CredentialsSignin"})

    def _who(self) -> str | None:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return "the bearer"
        for pair in self.headers.get("Cookie", "").split("; "):
            name, _, value = pair.partition("=")
            if name == f"{SESSION_COOKIE}.0":
                return value.removeprefix("jwt-")
        return None

    def _note(self) -> None:
        self.server.state.requests.append(f"{self.command} {self.path}")

    def _answer(self, status: int, body: dict[str, Any] | None = None, cookies: list[str] | None = None) -> None:
        time.sleep(self.server.behaviour.delay_s)
        content = json.dumps(body or {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for cookie in cookies or []:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
