"""A program that stands in for a migration tool with a history of its own, a table, and that fails as real ones cannot.

What it has recorded is read from the database, where it has recorded it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from at_most_one.postgres.connection import Login

from tests.database.index_tools import query
from tests.support.prisma_stand_in import EARLIER, OURS

LATER = "20991231_later"
HISTORY = "CREATE TABLE aedpics.tool_history (name text PRIMARY KEY, session text, arguments text)"
STAND_IN = """#!{python}
import os, pathlib, subprocess, sys, time
import psycopg2
question, name = sys.argv[1:]
pathlib.Path("calls").open("a").write(question + " ")
mode = pathlib.Path("mode").read_text()
order = {order}
if mode == "elsewhere":
    sys.exit(3)
if mode == "leaks":
    print("cannot connect to", os.environ["DATABASE_URL"], "as", os.environ["PGPASSWORD"], os.environ["API_TOKEN"])
    sys.exit(1)
if mode == "hangs":
    pathlib.Path("child").write_text(str(subprocess.Popen(["sleep", "60"]).pid))
connection = psycopg2.connect(os.environ["DATABASE_URL"])
connection.autocommit = True
cursor = connection.cursor()
if mode == "hangs":
    cursor.execute("SELECT pg_sleep(60)")
if question != "status":
    if mode == "fails":
        print("it was told so")
        sys.exit(7)
    if mode != "lies" and question == "applied":
        cursor.execute("INSERT INTO aedpics.tool_history VALUES (%s, current_setting('application_name'), %s)",
                       (name, open("/proc/self/cmdline").read().replace(chr(0), " ")))
    elif mode != "lies":
        cursor.execute("DELETE FROM aedpics.tool_history WHERE name = %s", (name,))
    sys.exit(0)
cursor.execute("SELECT name FROM aedpics.tool_history")
applied = {{row[0] for row in cursor.fetchall()}}
place = order.index(name)
if name in applied:
    sys.exit(4 if applied & set(order[place + 1:]) else 0)
sys.exit(3 if set(order[:place]) <= applied else 1)
"""


def install(login: Login, directory: Path) -> dict[str, Any]:
    """The tool in ``directory``, with the earlier migration applied; the ``history`` option of the modules for it."""
    tool = directory / "tool"
    tool.write_text(STAND_IN.format(python=sys.executable, order=[EARLIER, OURS, LATER]))
    tool.chmod(0o755)
    behave(directory)
    query(login, HISTORY)
    record(login, EARLIER)
    named = {word.replace("-", "_"): ["./tool", word, "{migration}"] for word in ("status", "applied", "not-applied")}
    return {
        **named,
        "path": str(directory),
        "environment": {"DATABASE_URL": "{url}", "API_TOKEN": "abracadabra-of-the-tool"},
        "timeout_s": 30,
    }


def behave(directory: Path, mode: str = "well") -> None:
    """How the tool acts from now on."""
    (directory / "mode").write_text(mode)


def record(login: Login, name: str) -> None:
    """What somebody else has the tool record."""
    query(login, "INSERT INTO aedpics.tool_history VALUES (%s)", name)


def recorded(login: Login) -> list[str]:
    """The migrations in the tool's history."""
    return [name for (name,) in query(login, "SELECT name FROM aedpics.tool_history ORDER BY 1")]


def calls(directory: Path) -> list[str]:
    """What the tool was asked, since this was last called."""
    path = directory / "calls"
    asked = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return asked
