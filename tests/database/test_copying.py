"""COPY in both directions: whatever a primary key is made of comes back as it was, however the texts are cut."""

from __future__ import annotations

from typing import Any

from at_most_one.postgres import copy
from at_most_one.postgres.connection import Connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2 import sql

_special = st.sampled_from(["\t", "\n", "\r", "\\", "\\N", "\\.", "\b", "\f", "\v", "%", "%s", "점검"])
_field = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6) | _special
_rows = st.lists(st.tuples(_field, _field).map(list), max_size=20)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_rows)
def test_rows_come_back_as_they_went(connection: Connection, rows: list[list[str]]) -> None:
    came: list[list[str]] = []
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE there (one text, other text, place serial) ON COMMIT DROP")
        copy.write(cursor, sql.SQL("pg_temp.there (one, other)"), rows)
        copy.read(cursor, sql.SQL("SELECT one, other FROM pg_temp.there ORDER BY place"), came.extend)
    connection.rollback()
    assert came == rows


@given(rows=_rows.filter(bool), data=st.data())
def test_it_does_not_matter_where_the_server_cuts(rows: list[list[str]], data: st.DataObject) -> None:
    text = "".join(map(copy._line, rows))
    came: list[list[str]] = []
    stream: Any = copy._Incoming(came.extend)
    while text:
        cut = data.draw(st.integers(1, len(text)))
        stream.write(text[:cut])
        stream.hand_over()
        text = text[cut:]
    assert came == rows
