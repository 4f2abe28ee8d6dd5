"""Text output does not depend on where it is asked for: rows are archived and compared as text."""

from __future__ import annotations

import pytest
from at_most_one.postgres.connection import Login, connect


def test_the_environment_overrules_no_setting(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGTZ": "Asia/Seoul", "PGDATESTYLE": "German", "PGOPTIONS": "-c extra_float_digits=0"}.items():
        monkeypatch.setenv(name, value)
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT timestamptz '2025-11-10 00:00+00'::text, 0.1::float8 + 0.2::float8")
        assert cursor.fetchone() == ("2025-11-10 00:00:00+00", 0.1 + 0.2)
