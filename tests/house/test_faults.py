"""The fault matrix names tests that exist, and every fault that a deployment must have met."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.deploy.faults import FAULTS

ROOT = Path(__file__).parents[2]
DEMANDED = {
    "crash at boot",
    "crash after 2 s",
    "boot slower than the timeout",
    "wrong build served",
    "removed BUILD_ID",
    "definition that no reload applies",
    "missing chunks",
    "missing shared file",
    "releases on another file system",
    "another way of deploying",
    "failed build",
    "health value wrong",
    "session API 500",
    "monitoring API 500",
    "monitoring API 500, there before",
    "monitoring API 500, repaired",
    "race losers 500",
    "race losers 500, there before",
    "polling page",
    "polling page, there before",
    "error lines in the log",
    "noisy old release",
    "new error line in a merged log",
    "service slowed to 20 requests a second",
    "duplicate reborn",
    "invalid index",
    "failed Prisma history",
    "lock held",
    "lock held on the second table",
    "migration that does more",
    "another migration undoes the rule",
    "replica instead of primary",
    "disk nearly full",
    "origin unreachable",
    "host lost in the middle",
    "hosts with different builds",
    "other Node major on a host",
    "notification endpoint down",
    "row that cannot return",
    "trigger that changes returning rows",
    "restore killed between two batches",
    "rows purged before a rollback",
    "purge killed between two batches",
    "soft-delete trigger",
    "stamping trigger",
    "trigger that changes settings",
    "trigger that writes to another table",
    "trigger that writes for few rows",
    "trigger that removes large objects",
    "trigger that writes on the way back",
    "reader who stays",
    "reader who stays, on the way back",
    "bulk insert under the fence",
    "publication for all tables",
    "table partitioned by another column",
    "failover with loss between two connections",
    "schema of somebody else",
    "run overtaken while its controller was frozen",
    "run frozen inside a write",
    "settings that reach every session",
    "server that counts no rows",
    "too few connections",
    "row level security forced on the owner",
    "network that loses every packet",
    "frozen server",
    "server that freezes under Prisma, or right after the login",
    "run frozen, and the one that took it over stops",
    "row too large for the archive",
}


def test_every_fault_is_there() -> None:
    assert set(FAULTS) == DEMANDED


def test_every_fault_is_tested_by_a_test_that_exists() -> None:
    files = sorted({fault.tested_by.partition("::")[0] for fault in FAULTS.values()})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    collected = done.stdout.splitlines()
    assert [name for name, fault in FAULTS.items() if fault.tested_by not in collected] == []


def test_every_verdict_says_what_is_taken_back() -> None:
    """A rollback is due only where something was reached; where nothing was, the run stops and takes nothing back."""
    for name, fault in FAULTS.items():
        assert (fault.outcome == "rolled_back") == fault.left.startswith("everything as before"), name


def test_the_document_has_every_fault_with_its_verdict() -> None:
    table = (ROOT / "docs/faults.md").read_text().partition("\n| fault | ")[2].partition("\n\n")[0]
    lines = table.splitlines()[2:]
    rows = {cells[0]: cells for line in lines if (cells := [cell.strip(" `") for cell in line.strip("|").split("|")])}
    assert rows.keys() == FAULTS.keys()
    for name, fault in FAULTS.items():
        assert rows[name][1] == fault.injected
        assert rows[name][2] == (fault.phase or "-")
        assert rows[name][3] in ({fault.outcome} if fault.outcome else {"-", "no run was opened", "no end"})
        assert rows[name][4] == fault.left
