"""What is shown of other people's queries."""

from __future__ import annotations

import pytest
from at_most_one.postgres.locks import describe, ending, without_literals


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("SELECT 1", "SELECT ?"),
        ("UPDATE t1 SET a = 'x', b = $1 WHERE c2 = 3.5", "UPDATE t1 SET a = ?, b = $1 WHERE c2 = ?"),
        ("SELECT 'it''s'   ||\n  'two'", "SELECT ? || ?"),
        (r"SELECT E'a\'b' , 'c'", "SELECT ? , ?"),
        ("SELECT $$secret 'one'$$, $body$two$body$", "SELECT ?, ?"),
        ("SELECT 'cut off by track_activity_query_si", "SELECT ?"),
        ("DO $$ cut off", "DO ?"),
        ("<insufficient privilege>", "<insufficient privilege>"),
        ("", ""),
        ("SELECT " + "abcdefghij, " * 20, ("SELECT " + "abcdefghij, " * 20)[:77] + "..."),
    ],
)
def test_literals_are_gone(query: str, shown: str) -> None:
    assert without_literals(query) == shown
    assert len(without_literals(query)) <= 80


def test_sessions_as_a_phrase() -> None:
    session = {"pid": 7, "user": "app", "state": "idle in transaction", "age_s": 3, "query": "SELECT ?"}
    session |= {"application": "dbeaver", "client": "192.0.2.7"}
    assert describe([]) == "no session holds a lock on it any more"
    shown = "pid 7 (app, idle in transaction for 3 s, dbeaver from 192.0.2.7: SELECT ?)"
    assert describe([session]) == f"locks on it are held by {shown}"
    assert describe([session] * 7).endswith(" and 2 more")
    assert "(SELECT pg_terminate_backend(7), pg_terminate_backend(7);)" in ending([session] * 2)
    assert "SELECT" not in ending([session | {"pid": 0}])
