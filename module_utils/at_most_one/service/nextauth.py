"""Signing in the way NextAuth wants it: a CSRF token, the credentials as a form, a session cookie.

Cookies are kept and sent by hand. Behind a proxy the application sets ``__Secure-`` and ``__Host-`` cookies although it
is asked over plain http on its own host, and a cookie jar by the book would neither keep nor send those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from ..findings import say
from ..http.client import Answer, fetch

# next-auth 4 and Auth.js 5; a long token is split into .0, .1, ...
_SESSION_COOKIE = re.compile(r"^(?:__Secure-|__Host-)?(?:next-auth|authjs)\.session-token(?:\.\d+)?$")


@dataclass(frozen=True)
class Credentials:
    """Who signs in. The password is never part of the representation."""

    email: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Identity:
    """What a request carries to be somebody, and which texts must not be shown."""

    who: str
    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


class SignInFailed(Exception):
    """``request`` is the step that failed, ``got`` its answer without secrets."""

    def __init__(self, request: str, expected: str, got: str) -> None:
        self.request, self.expected, self.got = request, expected, got
        super().__init__(f"{request}: {got}")


def with_cookies(jar: Mapping[str, str], headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The jar after an answer with these headers: values as they came; expired and emptied cookies are gone."""
    kept = dict(jar)
    for name, value in headers:
        if name.lower() != "set-cookie":
            continue
        pair, *attributes = (part.strip() for part in value.split(";"))
        cookie, separator, content = pair.partition("=")
        if not separator or not cookie.strip():
            continue
        expired = any(
            attribute.lower().replace(" ", "").startswith(("max-age=0", "max-age=-", "expires=thu,01jan1970"))
            for attribute in attributes
        )
        if expired or not content.strip():
            kept.pop(cookie.strip(), None)
        else:
            kept[cookie.strip()] = content.strip()
    return kept


def cookie_header(jar: Mapping[str, str]) -> str:
    """The jar as the value of a Cookie header."""
    return "; ".join(f"{name}={value}" for name, value in jar.items())


def has_session(jar: Mapping[str, str]) -> bool:
    """Whether the jar holds a session cookie, whatever prefix and however many parts."""
    return any(_SESSION_COOKIE.match(name) for name in jar)


def sign_in(base_url: str, credentials: Credentials, *, timeout_s: float, path: str = "/api/auth") -> Identity:
    """Sign in and see that the application knows the session. Raises SignInFailed and NoAnswer."""
    jar: dict[str, str] = {}
    secrets: tuple[str, ...] = (credentials.password,)

    def call(method: str, step: str, form: Mapping[str, str] | None = None) -> Answer:
        nonlocal jar
        headers = {"Accept": "application/json"}
        if jar:
            headers["Cookie"] = cookie_header(jar)
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            headers["X-Auth-Return-Redirect"] = "1"  # Auth.js 5: JSON instead of a redirect, as json=true in 4
        answer = fetch(
            method,
            f"{base_url.rstrip('/')}{path}{step}",
            timeout_s=timeout_s,
            headers=headers,
            body=urlencode(form).encode() if form is not None else None,
        )
        jar = with_cookies(jar, answer.headers)
        return answer

    answer = call("GET", "/csrf")
    body = answer.json()
    token = body.get("csrfToken") if isinstance(body, dict) else None
    if answer.status != 200 or not isinstance(token, str):
        raise SignInFailed(f"GET {path}/csrf", say("200 with a csrfToken"), answer.line(secrets))
    form = {"csrfToken": token, "email": credentials.email, "password": credentials.password}
    answer = call("POST", "/callback/credentials", {**form, "callbackUrl": base_url, "json": "true"})
    secrets = (*secrets, token, *jar.values())
    if not has_session(jar):
        location = answer.header("location") or ""
        got = f"{answer.line(secrets)} {location}".strip()
        raise SignInFailed(
            say("{request} as {who}", request=f"POST {path}/callback/credentials", who=credentials.email),
            say("a session cookie"),
            say("{got}, no session cookie", got=got),
        )
    answer = call("GET", "/session")
    secrets = (*secrets, *jar.values())
    body = answer.json()
    user = body.get("user") if isinstance(body, dict) else None
    if answer.status != 200 or not user:
        raise SignInFailed(
            say("{request} as {who}", request=f"GET {path}/session", who=credentials.email),
            say("200 with the user of the session"),
            answer.line(secrets),
        )
    return Identity(credentials.email, {"Cookie": cookie_header(jar)}, secrets)
