"""Somebody who asks the service: where it is, who signs in, one request at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..findings import say
from ..http.client import Answer, NoAnswer, fetch
from ..plan import Proof, Request
from ..system.log_errors import ERROR_PATTERN, Mark
from .nextauth import Credentials, Identity, SignInFailed, sign_in


@dataclass(frozen=True)
class Settings:
    """Where the service is and what it is expected to answer."""

    base_url: str
    timeout_s: float = 10.0
    auth: str = "nextauth"  # nextauth | bearer
    credentials: Credentials | None = None
    admin_credentials: Credentials | None = None
    bearer_token: str | None = field(default=None, repr=False)
    admin_bearer_token: str | None = field(default=None, repr=False)
    health_path: str = "/api/health"
    health_values: tuple[str, ...] = ("ok", "healthy")
    sessions_path: str = "/api/inspections/sessions"
    cancel_path: str = "/api/inspections/sessions/{id}/cancel"
    monitoring_path: str = "/api/monitoring/duplicate-sessions"
    canary: Mapping[str, Any] = field(default_factory=dict)  # the body of a creation request that has none of its own
    proof: Proof | None = None  # the plan's own way to a row; without it a session of the service above
    race_size: int = 8
    race_rounds: int = 1
    before_change: bool = False  # the release that is asked is the one that the change will replace
    log_files: Mapping[str, Mark] = field(default_factory=dict)  # path to where the release's own lines begin
    log_error_pattern: str = ERROR_PATTERN

    @property
    def row(self) -> Proof:
        """How a row under the rule is created and undone."""
        undo = Request("POST", self.cancel_path, {"reason": "deployment check"})
        return self.proof or Proof(Request("POST", self.sessions_path, None), undo)

    @property
    def row_body(self) -> Mapping[str, Any]:
        """What a creation sends."""
        body = self.row.create.body
        return self.canary if body is None else body


class Failed(Exception):
    """Ends a check early; ``got`` is for a person."""

    def __init__(self, request: str, expected: str, got: str) -> None:
        self.request, self.expected, self.got = request, expected, got
        super().__init__(got)


class Visitor:
    """The settings and who has signed in so far: each person signs in once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._known: dict[bool, Identity] = {}

    def person(self, *, admin: bool = False) -> Identity:
        """The identity of the user or the administrator. Raises SignInFailed."""
        if admin not in self._known:
            self._known[admin] = self._arrive(admin)
        return self._known[admin]

    def _arrive(self, admin: bool) -> Identity:
        settings = self.settings
        if settings.auth == "bearer":
            token = settings.admin_bearer_token or settings.bearer_token if admin else settings.bearer_token
            if not token:
                raise SignInFailed(say("sign in"), say("a bearer token"), say("none is given"))
            return Identity("the bearer", {"Authorization": f"Bearer {token}"}, (token,))
        credentials = settings.admin_credentials or settings.credentials if admin else settings.credentials
        if not credentials:
            raise SignInFailed(say("sign in"), say("e-mail and password"), say("none are given"))
        try:
            return sign_in(
                settings.base_url,
                credentials,
                timeout_s=settings.timeout_s,
            )
        except NoAnswer as failure:
            raise SignInFailed(
                say("sign in as {who}", who=credentials.email),
                say("a session"),
                say("no answer ({failure})", failure=failure),
            ) from failure

    def ask(self, method: str, path: str, who: Identity | None = None, body: Any = None, expected: str = "") -> Answer:
        """One request. Raises Failed when there is no answer."""
        try:
            return fetch(
                method,
                self.url(path),
                timeout_s=self.settings.timeout_s,
                **message(who, body),
            )
        except NoAnswer as failure:
            raise Failed(f"{method} {path}", expected, say("no answer ({failure})", failure=failure)) from failure

    def url(self, path: str) -> str:
        return f"{self.settings.base_url.rstrip('/')}{path}"


def message(who: Identity | None, body: Any) -> dict[str, Any]:
    headers = {"Accept": "application/json", **(who.headers if who else {})}
    if body is None:
        return {"headers": headers}
    return {"headers": {**headers, "Content-Type": "application/json"}, "body": json.dumps(body).encode()}
