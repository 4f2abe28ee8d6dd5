"""The connection URL that Prisma gets."""

from __future__ import annotations

import pytest
from at_most_one.postgres.connection import Login


@pytest.mark.parametrize(
    ("host", "place"),
    [("db.example.test", "db.example.test:5432"), ("::1", "[::1]:5432"), ("2001:db8::7", "[2001:db8::7]:5432")],
)
def test_an_ipv6_address_stands_in_brackets(host: str, place: str) -> None:
    login = Login(host, 5432, "aed pics", "us er", "p@ss/word'")
    assert login.url() == f"postgresql://us%20er:p%40ss%2Fword%27@{place}/aed%20pics?sslmode=prefer"
