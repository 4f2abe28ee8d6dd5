"""A copy of a database to rehearse on, masked before anybody else may connect to it, then put in the target's place.

The copy is made beside the target and takes its name at the end: until then the target serves as it did, and a copy
that fails leaves it alone. The source is only read.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from ..errors import OperatorError
from ..postgres import client_programs
from ..postgres.connection import Login, connect
from ..postgres.fence_names import PATTERN
from ..postgres.server_errors import first_line
from . import masking

MARK = "at-most-one: a clone that is being made"
_OURS = "at_most_one"  # the journal and the archive of the source are not the clone's
_INVALID = """
SELECT pg_catalog.format('%I.%I on %I', n.nspname, i.relname, t.relname)
FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = x.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
WHERE NOT x.indisvalid AND i.relkind = 'i' ORDER BY 1
"""
_FENCE = """
SELECT count(*) FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
WHERE i.relname ~ %s AND x.indisvalid -- one that is not valid is a leftover, of a run that has ended
"""
_PLACE = "SELECT pg_catalog.pg_postmaster_start_time()::text, pg_catalog.current_database()::text"
_GRANTS = """
SELECT CASE WHEN a.grantee = 0 THEN NULL ELSE r.rolname::text END, a.privilege_type::text
FROM pg_catalog.pg_database d
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE d.datname = %s AND a.grantee <> d.datdba ORDER BY 1, 2
"""
_NEXT = "correct what it says, then rehearse again; the target's database was not touched."


@dataclass(frozen=True)
class Source:
    """Where the copy comes from; one of the three."""

    login: Login | None = None  # a live database, read through pg_dump
    dump: str = ""  # a file of pg_dump: custom, directory or tar format
    template: str = ""  # a database on the target's own server, copied file by file

    @property
    def name(self) -> str:
        """For a person and for the evidence: no password."""
        return self.login.where() if self.login else self.dump or f"template {self.template}"


@dataclass(frozen=True)
class Cloned:
    """What came out. ``invalid_indexes`` is None where the source cannot say: a dump hides them."""

    source: str
    masked: dict[str, int]  # rows, by column
    invalid_indexes: list[str] | None


def look(target: Login, source: Source) -> list[str] | None:
    """Read the source; the INVALID indexes that it has. Raises OperatorError when it must not be cloned."""
    login = source.login or (replace(target, dbname=source.template) if source.template else None)
    if login is None:
        return None
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(_PLACE)
        place = cursor.fetchone()
        cursor.execute(_INVALID)
        invalid = [name for (name,) in cursor.fetchall()]
        cursor.execute(_FENCE, (PATTERN,))
        (fences,) = cursor.fetchone() or (0,)
    with connect(target) as connection, connection.cursor() as cursor:
        cursor.execute(_PLACE)
        same = cursor.fetchone() == place
    if same:
        raise OperatorError(
            f"The source and the target are one database: {target.where()}.",
            expected="two: the source is only read, the target is replaced.",
            next_step="correct rehearsal_source_login or rehearsal_source_template. Nothing was changed.",
        )
    if fences:
        raise OperatorError(
            f"The source has a write fence: a deployment is under way in {login.where()}.",
            expected="a database that nobody deploys to at the moment.",
            next_step="wait for that run, or take it back; then rehearse again. Nothing was changed.",
        )
    return invalid


def make(target: Login, source: Source, masks: Sequence[masking.Mask], *, maintenance: str, search_path: str) -> Cloned:
    """Replace the target's database by a masked copy of the source."""
    invalid = look(target, source)
    beside = replace(target, dbname=f"{target.dbname}_clone"[:63])
    server = replace(target, dbname=maintenance)
    try:
        with _emptied(server, beside.dbname, target.dbname, source.template):
            if not source.template:
                _restore(beside, source, search_path)
            with connect(beside, statement_timeout_ms=0) as connection, connection.cursor() as cursor:
                cursor.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(_OURS)))
                masked = masking.apply(connection, masks)
            _rewrite(beside, masks)
            _swap(server, target.dbname, beside.dbname)
    except psycopg2.Error as failure:
        raise OperatorError(
            f"The clone could not be made: {first_line(failure)} (SQLSTATE {failure.pgcode or 'none'}).",
            expected="a role that may create databases (CREATEDB), owns the target's, and owns its tables.",
            next_step=_NEXT,
        ) from failure
    return Cloned(source.name, masked, invalid)


@contextlib.contextmanager
def _emptied(server: Login, name: str, like: str, template: str) -> Iterator[None]:
    """A database of this name to which nobody but its owner may connect, gone again when the block fails."""
    database = sql.Identifier(name)
    with connect(server, autocommit=True, statement_timeout_ms=0) as connection, connection.cursor() as cursor:
        _drop_ours(cursor, name)
        # No connections at all until PUBLIC has lost the right: a template's rows are there from the first instant.
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false")
        cursor.execute(
            create.format(database, sql.Identifier(template or "template0")) + _locale(cursor, like, template)
        )
        cursor.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, sql.Literal(MARK)))
        cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        cursor.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database))
    try:
        yield
    except BaseException:
        with (
            contextlib.suppress(psycopg2.Error, OperatorError),
            connect(server, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            _drop_ours(cursor, name)
        raise


def _locale(cursor: Any, like: str, template: str) -> sql.Composable:
    """Encoding and locale of the database that is replaced; a template brings its own."""
    if template:
        return sql.SQL("")
    cursor.execute(
        "SELECT pg_catalog.pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text"
        " FROM pg_catalog.pg_database WHERE datname = %s",
        (like,),
    )
    values = [sql.Literal(value) for value in cursor.fetchone() or ()]
    return sql.SQL(" ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(*values) if values else sql.SQL("")


def _drop_ours(cursor: Any, name: str) -> None:
    """Drop what an earlier clone has left; refuse a database of this name that is not marked as one."""
    cursor.execute(
        "SELECT coalesce(pg_catalog.shobj_description(oid, 'pg_database') = %s, false)"
        " FROM pg_catalog.pg_database WHERE datname = %s",
        (MARK, name),
    )
    found = cursor.fetchone()
    if found == (False,):
        raise OperatorError(
            f"A database {name} is there, and it is not a clone that was left unfinished.",
            expected="that name to be free: the clone is made under it.",
            next_step="rename or drop it. Nothing was changed.",
        )
    if found:
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _restore(beside: Login, source: Source, search_path: str) -> None:
    """Fill the database from a dump, or from a live database through a pipe: nothing unmasked touches a disk."""
    restore = [client_programs.find("pg_restore", search_path), "--exit-on-error", "--no-password", "--no-owner"]
    # Rights and roles are the environment's own; comments on extensions only a superuser may set.
    restore += ["--no-privileges", "--no-comments", "--no-publications", "--no-subscriptions"]
    restore += [f"--exclude-schema={_OURS}", f"--dbname={beside.dbname}"]
    with client_programs.access(beside) as here:
        if source.login is None:
            client_programs.run([*restore, source.dump], here, [beside.password], _NEXT)
            return
        dump = [client_programs.find("pg_dump", search_path), "--format=custom", "--compress=0", "--no-password"]
        dump += [f"--exclude-schema={_OURS}"]
        secret = [beside.password, source.login.password]
        with (
            client_programs.access(source.login) as there,
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(  # noqa: S603 (no shell; found by name)
                dump, env=dict(there.environment), pass_fds=there.files, stdout=subprocess.PIPE, stderr=said
            ) as reading,
        ):
            failure = None
            done = subprocess.run(  # noqa: S603 (no shell; found by name)
                restore,
                env=dict(here.environment),
                pass_fds=here.files,
                stdin=reading.stdout,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if reading.stdout:
                reading.stdout.close()
            reading.wait()
            said.seek(0)
            if done.returncode:
                failure = client_programs.failed(restore[0], done.returncode, done.stderr, secret, _NEXT)
            if reading.returncode > 0:  # killed by the closed pipe (< 0) it only follows
                failure = client_programs.failed(dump[0], reading.returncode, said.read(), secret, _NEXT)
            if failure:
                raise failure


def _rewrite(beside: Login, masks: Sequence[masking.Mask]) -> None:
    """Leave no old row version and no old value in the planner's statistics; gather new ones."""
    with connect(beside, autocommit=True, statement_timeout_ms=0) as connection, connection.cursor() as cursor:
        for schema, table in masking.tables(masks):
            cursor.execute(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(sql.Identifier(schema, table)))
        cursor.execute("ANALYZE")


def _swap(server: Login, target: str, clone: str) -> None:
    """Give the clone the target's name and rights, and drop what was there."""
    old, new = sql.Identifier(target), sql.Identifier(clone)
    away = sql.Identifier(f"{target}_replaced"[:63])
    with connect(server, autocommit=True, statement_timeout_ms=0) as connection, connection.cursor() as cursor:
        cursor.execute(_GRANTS, (target,))
        grants = cursor.fetchall()
        cursor.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(old))
        try:
            _end_sessions(cursor, target, clone)
            cursor.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, away))
            try:
                cursor.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(new, old))
            except psycopg2.Error:
                cursor.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(away, old))
                raise
        except psycopg2.Error:
            cursor.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(old))
            raise
        for role, right in grants:
            to = sql.SQL("PUBLIC") if role is None else sql.Identifier(role)
            cursor.execute(sql.SQL("GRANT {} ON DATABASE {} TO {}").format(sql.SQL(right), old, to))
        cursor.execute(sql.SQL("COMMENT ON DATABASE {} IS NULL").format(old))
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(away))


def _end_sessions(cursor: Any, *databases: str) -> None:
    """The application's pool reconnects by itself; nothing can be renamed under an open connection."""
    cursor.execute(
        "SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity"
        " WHERE datname = ANY (%s) AND pid <> pg_catalog.pg_backend_pid()"
        if cursor.connection.server_version >= 140000
        else "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
        " WHERE datname = ANY (%s) AND pid <> pg_catalog.pg_backend_pid()",
        (list(databases),),
    )
