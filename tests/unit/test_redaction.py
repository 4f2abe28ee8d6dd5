"""What is taken out of other programs' text, whatever surrounds it; what stays; and that it takes linear time."""

from __future__ import annotations

import html
import json
import string
import time
from urllib.parse import quote, quote_plus

import markupsafe
import pytest
from at_most_one.system.redaction import MASK, redact, redact_data
from hypothesis import given
from hypothesis import strategies as st

ALPHANUMERIC = string.ascii_letters + string.digits
# Text that holds no secret by itself: what stands around one.
SURROUNDING = st.text(alphabet=" \t'\"`=:;,.&?/\\\\@()[]{}<>|-_$#%~äa1한", max_size=12)


def of(prefix: str, alphabet: str, least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text(alphabet=alphabet, min_size=least, max_size=most or least).map(lambda rest: prefix + rest)


TOKENS = st.one_of(
    *(of(prefix, ALPHANUMERIC, 36) for prefix in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "npm_", "hf_")),
    of("github_pat_", ALPHANUMERIC + "_", 82),
    *(of(prefix, ALPHANUMERIC + "_-", 20) for prefix in ("glpat-", "gldt-", "glrt-", "glptt-", "gloas-")),
    of("pypi-AgEIcHlwaS5vcmc", ALPHANUMERIC + "-_", 120, 180),
    *(of(prefix, ALPHANUMERIC + "-", 24, 60) for prefix in ("xoxb-", "xoxp-", "xapp-1-")),
    *(of(prefix, string.ascii_uppercase + string.digits, 16) for prefix in ("AKIA", "ASIA")),
    of("AIza", ALPHANUMERIC + "-_", 35),
    of("GOCSPX-", ALPHANUMERIC + "-_", 28),
    of("ya29.", ALPHANUMERIC + "-_", 60),
    of("sk_live_", ALPHANUMERIC, 24),
    of("dckr_pat_", ALPHANUMERIC, 27),
    of("hooks.slack.com/services/", ALPHANUMERIC + "/", 30),
    of("eyJhbGciOiJIUzI1NiJ9.eyJzdWIi", ALPHANUMERIC + "-_", 20).map(lambda start: f"{start}.c2lnbmF0dXJl"),
)
NAMES = st.sampled_from(
    (
        *("password", "DATABASE_PASSWORD", "PGPASSWORD", "db_pass", "SMTP-PASS", "pwd", "ADMIN_PWD", "secret"),
        *("nextauth_secret", "clientSecret", "token", "_authToken", "NPM_TOKEN", "api_key", "apiKey", "SSH_KEY"),
        *("accessKey", "x-api-key", "AWS_SECRET_ACCESS_KEY", "private-key"),
    )
)
OPERATORS = st.sampled_from(["=", ": ", " = ", ":", " => ", ":=", "\t=\t"])
# What a password is made of that nobody has quoted: begins and ends with letters that no sentence puts behind it.
LOOSE = st.text(alphabet=string.ascii_letters + string.digits + "!#$%*+-./?@^_~한", min_size=6, max_size=30)
ANY = st.text(
    alphabet=st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=4, max_size=40
).map("Zq{}".format)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://user:pass@host:5432/db", "postgresql://***@host:5432/db"),
        ("postgresql://user:p@ss/word@host/db failed", "postgresql://***@host/db failed"),
        ("cut off: postgresql://user:hunter2", "cut off: postgresql://user:***"),
        ("http://localhost:3000/ and http://host:80", "http://localhost:3000/ and http://host:80"),
        ("DATABASE_PASSWORD=hunter2 next", "DATABASE_PASSWORD=*** next"),
        ('{"password": "hunter two", "user": "x"}', '{"password": ***, "user": "x"}'),
        ("nextauth_secret: 'two words'", "nextauth_secret: ***"),
        ("API_KEY=abc&x=1", "API_KEY=***&x=1"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("sent bearer abc.def-1=, refused", "sent bearer ***, refused"),
        ("Cookie: a=1; b=2", "Cookie: ***"),
        ("token eyJhbGciOi.eyJzdWIi.c2ln end", "token *** end"),
        ("Error: relation does not exist", "Error: relation does not exist"),
        ("keyboard = qwerty", "keyboard = qwerty"),
        ("postgresql://user:12ab", "postgresql://user:***"),
        ("PASSWORD=hun,ter;2&x)y next", "PASSWORD=*** next"),
        ("psql 'postgresql://u:p@h/d' -c 'x@y'", "psql 'postgresql://***@h/d' -c 'x@y'"),
        ("?next=postgresql://u:p@h/d", "?next=postgresql://***@h/d"),
        (r'"{\"password\":\"two words\",\"user\":\"x\"}"', r'"{\"password\":***,\"user\":\"x\"}"'),
        ("ALTER ROLE a PASSWORD 'x''y z' LOGIN", "ALTER ROLE a PASSWORD *** LOGIN"),
        ("docker login --password hunter2 -u me", "docker login --password *** -u me"),
        ("//packages.example.org/:_authToken=abc", "//packages.example.org/:_authToken=***"),
        ("//packages.example.org/:_auth=dTpw and _auth = dTpw", "//packages.example.org/:_auth=*** and _auth = ***"),
        ("비밀번호: 가나다", "비밀번호: ***"),
        ("'Authorization': 'Basic YTpi', 'x': 1", "'Authorization': ***"),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_known_secrets_are_masked_wherever_they_are() -> None:
    assert redact("a tail, a tail-end", ["tail", "tail-end", ""]) == "a ***, a ***"


SPELLED = 'p@ss/w:r\'d "1" \\ é%(x)!*&'


@pytest.mark.parametrize(
    "spelled",
    [
        *(SPELLED, quote(SPELLED), quote(SPELLED, safe=""), quote_plus(SPELLED), quote(SPELLED, safe="!'()*")),
        *(quote(SPELLED, safe="").lower(), json.dumps(SPELLED)[1:-1], json.dumps(SPELLED, ensure_ascii=False)[1:-1]),
        *(html.escape(SPELLED), str(markupsafe.escape(SPELLED))),
    ],
)
def test_a_known_secret_is_masked_however_it_is_spelled(spelled: str) -> None:
    """As it is, in an address by Python, by JavaScript and by others, in JSON, and on a page."""
    assert redact(f"a {spelled} b", [SPELLED]) == "a *** b"


def test_what_a_known_secret_of_an_address_stands_for_is_masked_too() -> None:
    assert redact("a p@ssword1 b p%40ssword1", ["p%40ssword1"]) == "a *** b ***"
    assert redact("a short word", ["%61"]) == "a short word"


@pytest.mark.parametrize(
    "text",
    [
        "GET https://packages.example.org/@babel%2fcore: 404",
        "http://localhost:3000/@vite/client, http://[::1]:3000/ and http://host:80",
        "postgresql://one:5432,two:5433/service?sslmode=verify-full",
        'duplicate key value violates unique constraint "user_key"',
        "Key (user_id)=(5) already exists.",
        "primary_key=id, foreign key: user_id",
        "app_auth=bearer, auth: nextauth",
        'password authentication failed for user "service"',
        "Unexpected token '<' in JSON at position 0",
        "the token has expired; a new password is needed",
        "git+ssh://github.com/owner/project#0123456789abcdef0123456789abcdef01234567",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "task-of-the-desk-that-risks-nothing-at-all-and-goes-on",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


@given(SURROUNDING, TOKENS, SURROUNDING)
def test_a_token_is_gone_whatever_surrounds_it(before: str, token: str, after: str) -> None:
    assert token not in redact(before + token + after)


@given(
    SURROUNDING, NAMES, OPERATORS, LOOSE, st.sampled_from([" next", "\n", "", ", user=x", "; a=b", "&a=b", '","a":"b"'])
)
def test_an_assigned_value_is_gone(before: str, name: str, operator: str, value: str, after: str) -> None:
    assert value not in redact(f"{before} {name}{operator}{value}{after}")


@given(SURROUNDING, NAMES, ANY)
def test_a_quoted_value_is_gone_in_json_in_json_in_json_and_in_python(before: str, name: str, value: str) -> None:
    once = json.dumps({"a": 1, name: value, "z": "stays"}, ensure_ascii=False)
    assert value not in redact(f"{before} {once}".replace(MASK, ""))
    assert "stays" in redact(once)
    twice = json.dumps({"body": once}, ensure_ascii=False)
    inside = json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False)[3:-3]
    assert len(inside) < 6 or inside not in redact(twice)
    assert repr(value)[1:-1] not in redact(repr({name: value}))


@given(
    st.sampled_from(["see ", "'", '"', "(", "url=", "a b "]),
    st.sampled_from(["postgresql", "postgres", "https", "redis", "amqps", "git+https"]),
    st.text(alphabet=ALPHANUMERIC + "._-%", min_size=1, max_size=8),
    st.text(alphabet=string.ascii_letters + string.digits + "!$&()*+,;=:@/?#[]~_.-", min_size=6, max_size=20),
    st.sampled_from(["", "'", '"', ") and more", " next", "?sslmode=require"]),
)
def test_the_password_of_an_address_is_gone(before: str, scheme: str, user: str, password: str, after: str) -> None:
    secret = f"x{password}"  # digits alone in front of its first / would be a port
    shown = redact(f"{before}{scheme}://{user}:{secret}@db.example:5432/service{after}")
    assert secret not in shown
    assert shown.startswith(before)
    assert "@db.example:5432/service" in shown


@given(
    st.text(alphabet=ALPHANUMERIC + "+/", min_size=200, max_size=400), st.sampled_from(["\n", "\r\n", "\\n", "  \n"])
)
def test_a_private_key_is_gone_over_several_lines(body: str, end: str) -> None:
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    begin, last = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
    whole = end.join(["before", f"key: {begin}", *lines, f"{last} after"])
    for text in (whole, whole.replace(last, ""), end.join([*lines, last])):
        shown = redact(text)
        assert not any(line in shown for line in lines if len(line) > 20)
    assert redact(whole).startswith("before")
    assert redact(whole).endswith(" after")


WORDS = st.text(alphabet=string.ascii_letters + "äöü한국어 .,;!?()[]{}#%&*+<>|~^", max_size=200)


@given(WORDS)
def test_words_without_assignments_stay(text: str) -> None:
    assert redact(text) == text.replace("\r", "")


@given(SURROUNDING, NAMES, OPERATORS, ANY)
def test_redacting_again_changes_nothing(before: str, name: str, operator: str, value: str) -> None:
    once = redact(f"{before} {name}{operator}{value}")
    assert redact(once) == once


def test_data_is_redacted_by_name_and_by_text() -> None:
    data = {"password": "hunter2", "count": 3, "keys": [{"api_key": "abc", "url": "https://u:p@h/"}], "token": ""}
    assert redact_data(data) == {
        "password": MASK,
        "count": 3,
        "keys": [{"api_key": MASK, "url": "https://***@h/"}],
        "token": "",
    }


@pytest.mark.parametrize(
    "piece",
    [
        *("x", "token", "a://", "a://b:c@", "a://h:1,", "password=", "password=a,", "password=)a", "key ", "a-", "eyJ"),
        *("ghp_", "cookie ", "bearer ", "-----BEGIN ", "-----END RSA PRIVATE KEY-----", "password=,{[", 'pass="\\'),
    ],
)
def test_the_time_grows_with_the_length_of_the_line_alone(piece: str) -> None:
    """Four times the length takes four times as long; were a pattern to look back, it would take sixteen times."""

    def seconds(length: int) -> float:
        line = (piece * (length // len(piece) + 1))[:length]
        best = float("inf")
        for _ in range(2):
            began = time.process_time()
            redact(line)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(400_000) < 9 * seconds(100_000) + 0.02


def test_a_line_of_a_megabyte_takes_four_times_as_long_as_one_of_a_quarter() -> None:
    line = 'a("https://host/path",{apiKey:"x",n:1,t:"ghp_"});'

    def seconds(length: int) -> float:
        began = time.process_time()
        assert len(redact(line * (length // len(line)))) <= 4_000
        return time.process_time() - began

    assert seconds(1_000_000) < 9 * seconds(250_000) + 0.05
