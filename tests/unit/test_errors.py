"""What a person reads when something stops: seen, expected, next; and that a password is never part of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from at_most_one.errors import OperatorError
from at_most_one.findings import Finding
from at_most_one.postgres.connection import Login, connect

LOGIN = Login("127.0.0.1", 1, "aedpics", "admin", "p@ss/w:rd?&#", sslmode="disable")  # nothing listens on port 1


def test_the_error_says_seen_expected_next_in_this_order() -> None:
    stop = OperatorError("Seen.", expected="this.", next_step="do that.", count=3)
    assert str(stop) == "Seen. Expected: this. Next: do that."
    assert stop.details == {"count": 3}
    assert stop.findings == (Finding("", "Seen.", "this.", "do that."),)


def test_an_error_of_several_findings_has_each_of_them_and_names_a_shared_step_once() -> None:
    class Refused(OperatorError):
        pass

    found = [Finding(name, f"{name}.", f"no {name}.", "correct it.") for name in ("a", "b")]
    stop = Refused.of(found, count=2)
    assert isinstance(stop, Refused)
    assert stop.findings == tuple(found)
    assert str(stop) == "a. b. Expected: no a. no b. Next: correct it."
    assert (stop.seen, stop.expected, stop.next_step) == ("a. b.", "no a. no b.", "correct it.")
    assert stop.details == {"count": 2}
    assert str(OperatorError.of(found[:1])) == str(found[0])


def test_an_unreachable_database_is_an_error_and_not_an_empty_one() -> None:
    with pytest.raises(OperatorError, match=r"No connection to admin@127\.0\.0\.1:1/aedpics") as stop, connect(LOGIN):
        pass
    assert "unknown, not 0" in stop.value.expected
    assert LOGIN.password not in str(stop.value)


def test_a_login_never_shows_its_password() -> None:
    assert LOGIN.password not in repr(LOGIN)
    assert LOGIN.password not in LOGIN.where()


def test_the_url_survives_every_character_of_a_password() -> None:
    url = replace(LOGIN, user="a b", dbname="x/y").url(schema="aedpics", options="-c lock_timeout=500")
    assert url == (
        "postgresql://a%20b:p%40ss%2Fw%3Ard%3F%26%23@127.0.0.1:1/x%2Fy"
        "?sslmode=disable&schema=aedpics&options=-c%20lock_timeout%3D500"
    )
