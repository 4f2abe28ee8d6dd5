"""Cookies, session ids and secrets, in tables."""

from __future__ import annotations

from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.http.client import Answer, Place, place
from at_most_one.service import nextauth
from at_most_one.service.health_checks import session_id
from at_most_one.system.redaction import first_line


@pytest.mark.parametrize(
    ("jar", "cookies", "expected"),
    [
        ({}, ["a=1; Path=/; HttpOnly"], {"a": "1"}),
        ({"a": "1"}, ["b=2", "a=3; Secure"], {"a": "3", "b": "2"}),
        ({}, ["__Secure-next-auth.session-token=x.y=z%7C; Secure"], {"__Secure-next-auth.session-token": "x.y=z%7C"}),
        ({"a": "1"}, ["a=; Path=/"], {}),
        ({"a": "1"}, ["a=gone; Max-Age=0"], {}),
        ({"a": "1"}, ["a=gone; max-age=-1; Path=/"], {}),
        ({"a": "1"}, ["a=gone; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], {}),
        ({"a": "1"}, ["a=2; Expires=Fri, 01 Jan 2100 00:00:00 GMT; Max-Age=2592000"], {"a": "2"}),
        ({"a": "1"}, ["never set; Path=/", "=x", ""], {"a": "1"}),
        ({}, ['quoted="kept as it came"'], {"quoted": '"kept as it came"'}),
    ],
)
def test_with_cookies(jar: dict[str, str], cookies: list[str], expected: dict[str, str]) -> None:
    headers = [("content-type", "a=b"), *(("Set-Cookie", cookie) for cookie in cookies)]
    assert nextauth.with_cookies(jar, headers) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("next-auth.session-token", True),
        ("__Secure-next-auth.session-token", True),
        ("__Secure-next-auth.session-token.0", True),
        ("authjs.session-token", True),
        ("__Host-authjs.session-token.1", True),
        ("next-auth.csrf-token", False),
        ("__Secure-next-auth.callback-url", False),
        ("my-next-auth.session-token", False),
    ],
)
def test_has_session(name: str, expected: bool) -> None:
    assert nextauth.has_session({name: "x"}) is expected


def test_cookie_header() -> None:
    assert nextauth.cookie_header({"a": "1", "b": "2=2"}) == "a=1; b=2=2"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"session": {"id": "s1", "status": "active"}}, "s1"),
        ({"data": {"session": {"id": "s1"}}}, "s1"),
        ({"success": True, "data": {"id": 7}}, "7"),
        ({"id": "s1"}, "s1"),
        ({"sessionId": "s1"}, "s1"),
        ({"session": {"id": None}}, None),
        ({"session": {"id": True}}, None),
        ({"error": "no"}, None),
        ([], None),
        (None, None),
    ],
)
def test_session_id(body: Any, expected: str | None) -> None:
    assert session_id(body) == expected


def test_first_line() -> None:
    assert first_line("\n  \n  <html>  \n<body>") == "<html>"
    assert first_line("x" * 500) == "x" * 200
    assert first_line("") == ""


def test_answer() -> None:
    answer = Answer(503, (("x-app-pid", "1"), ("x-app-pid", "2")), b'{"status":"unhealthy","token":"abc"}')
    assert answer.header("X-App-Pid") == "1"
    assert answer.header("none") is None
    assert answer.line() == '503 {"status":"unhealthy","token":***}'
    assert Answer(204, (), b"").line() == "204"
    assert Answer(200, (), b"<html>").json() is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:3000", Place("http", "127.0.0.1", 3000, "/")),
        ("https://aed.pics/api?x=1", Place("https", "aed.pics", None, "/api?x=1")),
        ("http://[::1]:80/", Place("http", "::1", 80, "/")),
        ("http://[fe80::1%25eth0]:3000/a", Place("http", "fe80::1%eth0", 3000, "/a")),
        ("http://[fe80::1%eth0]/", Place("http", "fe80::1%eth0", None, "/")),
    ],
)
def test_place(url: str, expected: Place) -> None:
    assert place(url) == expected


@pytest.mark.parametrize("url", ["", "aed.pics", "ftp://host/", "http://", "http://host:port/", "http://u:p@host/"])
def test_place_refuses(url: str) -> None:
    with pytest.raises(OperatorError) as refused:
        place(url)
    assert "u:p" not in str(refused.value)
