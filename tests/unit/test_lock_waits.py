"""No wait of ours for a lock is as long as twice deadlock_timeout, of which PostgreSQL's default is one second.

After that the server may end a transaction of the application that waits for us (docs/architecture.md). What restores
rows asks the server for its own: tests/database/test_restore_faults.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from at_most_one.indexes import brief_lock
from at_most_one.migration import race
from at_most_one.preflight import out_and_back

ROLES = Path(__file__).parents[2] / "roles"


@pytest.mark.parametrize("role", ["cleanup", "migrate", "verify"])
def test_of_a_role(role: str) -> None:
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text(encoding="utf-8"))
    assert 0 < defaults[f"{role}_lock_timeout_ms"] < 2_000


def test_of_statements_of_an_instant_and_of_trials() -> None:
    assert max(brief_lock._LOCK_TIMEOUT_MS, race._LOCK_TIMEOUT_MS, out_and_back._LOCK_TIMEOUT_MS) < 2_000
