"""A logical backup of the tables that a plan touches, made by pg_dump before the first row leaves, and read again.

It is consistent to one moment, and it counts as made only when what is in the file are the same tables with the same
number of rows as PostgreSQL had at that moment.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from psycopg2 import sql

from ..duplicates import affected
from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Plan
from ..postgres import catalog_snapshot, client_programs
from ..postgres.connection import Connection, Login, connect
from ..system import files

Table = tuple[str, str]  # schema, name

# A partitioned table has its rows in its leaves.
_LEAVES = """
SELECT n.nspname::text, c.relname::text, c.relkind::text, pg_catalog.pg_table_size(c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %(table)s::regclass
   OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(%(table)s::regclass))
"""
_COPY = re.compile(r'^COPY ((?:"(?:[^"]|"")+"|[^."]+)\.(?:"(?:[^"]|"")+"|[^."\s]+)) .*FROM stdin;$')
_NAME = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')
_RUN_ID = r"\d{8}T\d{6}Z-[0-9a-f]+"


@dataclass(frozen=True)
class Wanted:
    """Where the backup goes, and how many of this plan's are kept."""

    directory: Path
    name: str  # sorts by time; ends in .dump
    keep: int
    search_path: str  # where pg_dump and pg_restore are looked for before PATH


@dataclass(frozen=True)
class Made:
    """A backup, or in check mode the one that would be made. ``needed`` is False when nothing can leave any more."""

    needed: bool
    path: str
    tables: Mapping[str, int]  # rows, by schema.name; empty in check mode
    bytes: int  # of the file; in check mode an upper bound
    seconds: float
    pruned: tuple[str, ...]
    sha256: str = ""  # of the file; a purge removes no other one. Empty in check mode


def make(login: Login, plan: Plan, wanted: Wanted, *, lock_timeout_ms: int, check_mode: bool) -> Made:
    """Make the backup, read it again, keep the newest. Raises OperatorError before anything else is changed."""
    began = time.monotonic()
    path = wanted.directory / wanted.name
    # No timeouts: the transaction waits for pg_dump, and counting large tables may take its time. It locks nothing that
    # the service would wait for.
    with connect(login, lock_timeout_ms=lock_timeout_ms, statement_timeout_ms=0) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        if _is_done(connection, plan):
            return Made(False, "", {}, 0, 0.0, ())
        tables, size = _tables(connection, plan)
        _require_space(wanted.directory, size)
        programs = [client_programs.find(name, wanted.search_path) for name in ("pg_dump", "pg_restore")]
        if check_mode:
            return Made(True, str(path), {}, size, 0.0, ())
        files.directory(wanted.directory, 0o700)
        for abandoned in _of_plan(wanted, plan, ".", ".dump.partial"):  # of a run that was killed: we hold the plan
            abandoned.unlink()
        with _partial(path) as partial:
            rows = _dump(connection, login, programs[0], tables, partial, lock_timeout_ms)
            _verify(programs[1], partial, rows)
            sha256 = files.sha256(partial)
            os.replace(partial, path)
    named = {f"{schema}.{name}": count for (schema, name), count in rows.items()}
    seconds = time.monotonic() - began
    return Made(True, str(path), named, path.stat().st_size, seconds, _prune(wanted, plan), sha256)


def _is_done(connection: Connection, plan: Plan) -> bool:
    """Whether every planned index is there and valid, the rule's own too: then no surplus row can be left."""
    return set(catalog_snapshot.take(connection, plan).usable_indexes) == {index.name for index in plan.indexes}


def _tables(connection: Connection, plan: Plan) -> tuple[dict[Table, str], int]:
    """(schema, name) to relkind, partitions included, and the bytes that their rows take now."""
    found: dict[Table, str] = {}
    size = 0
    with connection.cursor() as cursor:
        for schema, name in affected.tables(connection, plan, history=True):
            cursor.execute(_LEAVES, {"table": sql.Identifier(schema, name).as_string(cursor)})
            for leaf_schema, leaf, kind, its_bytes in cursor.fetchall():
                found[leaf_schema, leaf] = kind
                size += int(its_bytes)
    return found, size


def _require_space(directory: Path, size: int) -> None:
    there = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise OperatorError(
            observed(
                "AMO-2301",
                "{directory} has {free} MB free; a backup of the planned tables may need {size} MB.",
                directory=directory,
                free=f"{free / 1000000.0:.0f}",
                size=f"{size / 1000000.0:.0f}",
            ),
            expected=say("room for the tables as they are, although the backup is compressed."),
            next_step=say("make room, or name another place: prepare_backup_path."),
            free=free,
            needed=size,
        )


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A private file beside the backup, removed unless it has become the backup."""
    partial = path.with_name(f".{path.name}.partial")
    os.close(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _dump(
    connection: Connection,
    login: Login,
    pg_dump: str,
    tables: Mapping[Table, str],
    path: Path,
    lock_timeout_ms: int,
) -> dict[Table, int]:
    """Write the dump, and return the rows of each table at the moment that the dump is of."""
    rows: dict[Table, int] = {}
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute("SELECT pg_catalog.pg_export_snapshot()")
        (moment,) = cursor.fetchone() or ("",)
        for (schema, name), kind in tables.items():
            if kind != "p":
                cursor.execute(sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, name)))
                rows[schema, name] = int((cursor.fetchone() or (0,))[0])
    quoted = [f"--table={_quoted(schema)}.{_quoted(name)}" for schema, name in tables]
    options = ["--format=custom", "--no-password", f"--snapshot={moment}", f"--file={path}"]
    with client_programs.access(login) as access:
        client_programs.run(
            [pg_dump, *options, f"--lock-wait-timeout={lock_timeout_ms}", *quoted],
            access,
            [login.password],
            say(
                "correct what it says (a pg_dump older than the server refuses to work), then the same "
                "playbook again; prepare_backup_keep=0 goes without a backup of its own."
            ),
        )
    return rows


def _quoted(name: str) -> str:
    """A name in a pattern of pg_dump: inside double quotes nothing is special but the quote itself."""
    return '"' + name.replace('"', '""') + '"'


def _verify(pg_restore: str, path: Path, rows: Mapping[Table, int]) -> None:
    """Read the whole file again, and stop unless it has the same tables with the same number of rows."""
    again = say("make room on the disk and run the same playbook again; the file was not kept.")
    listed = client_programs.run([pg_restore, "--list", str(path)], client_programs.no_access(), [], again)
    found = _count(pg_restore, path, again)
    if found != dict(rows) or listed.count(" TABLE DATA ") != len(rows):
        differing = sorted(f"{t[0]}.{t[1]}" for t in {*found, *rows} if found.get(t) != rows.get(t))
        raise OperatorError(
            observed(
                "AMO-2302",
                "The backup does not hold what the tables held: {differing}.",
                differing=", ".join(differing) or say("its list is another one"),
            ),
            expected=say("every planned table, with every row that it had at the moment of the backup."),
            next_step=again,
        )


def _count(pg_restore: str, path: Path, next_step: str) -> dict[Table, int]:
    """The rows of each table in the file, counted as they stream by."""
    counted: dict[Table, int] = {}
    table: Table | None = None
    arguments, environment = [pg_restore, "--data-only", "--file=-", str(path)], client_programs.no_access().environment
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(  # noqa: S603 (no shell; the program was found by name)
            arguments, env=dict(environment), stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
        ) as process,
    ):
        for line in process.stdout or ():
            if table is None:
                if heading := _COPY.match(line.rstrip("\n")):
                    schema, name = (a.replace('""', '"') or b for a, b in _NAME.findall(heading[1]))
                    table = (schema, name)
                    counted[table] = 0
            elif line == "\\.\n":
                table = None
            else:
                counted[table] += 1
        process.wait()
        errors.seek(0)
        said = errors.read()
    if process.returncode:
        raise client_programs.failed(pg_restore, process.returncode, said, [], next_step)
    return counted


def _prune(wanted: Wanted, plan: Plan) -> tuple[str, ...]:
    """Remove this plan's older backups; their names sort by time."""
    ours = sorted(_of_plan(wanted, plan, "", ".dump"), reverse=True)
    for old in ours[wanted.keep :]:
        old.unlink()
    return tuple(path.name for path in ours[wanted.keep :])


def _of_plan(wanted: Wanted, plan: Plan, before: str, behind: str) -> list[Path]:
    """The files of this plan's runs, and of no plan whose name only begins with its name."""
    named = re.compile(f"{re.escape(before + plan.id)}-{_RUN_ID}{re.escape(behind)}")
    return [path for path in wanted.directory.iterdir() if named.fullmatch(path.name)]
