"""A copy of a database to rehearse on, masked before anybody else may connect to it, then put in the target's place.

The copy is made beside the target and takes its name at the end: until then the target serves as it did, and a copy
that fails leaves it alone. The source is only read.
"""

from __future__ import annotations

import contextlib
import csv
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..postgres import client_programs, own_schema
from ..postgres.connection import Connection, Login, connect
from ..postgres.fence_names import PATTERN
from ..postgres.server_errors import explain
from . import masking, outside, unmasked

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
_OTHERS = "SELECT DISTINCT environment FROM at_most_one.run WHERE environment <> %s ORDER BY 1"
_GRANTS = """
SELECT CASE WHEN a.grantee = 0 THEN NULL ELSE r.rolname::text END, a.privilege_type::text
FROM pg_catalog.pg_database d
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE d.datname = %s AND a.grantee <> d.datdba ORDER BY 1, 2
"""
_SETTINGS = """
SELECT r.rolname::text, c.setting
FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) WITH ORDINALITY AS c (setting, number)
WHERE d.datname = %s ORDER BY r.rolname NULLS FIRST, c.number
"""
# Their values are lists of quoted names: https://www.postgresql.org/docs/current/sql-alterdatabase.html, and pg_dumpall
_LISTS = ("search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries")
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}
_EVENT_TRIGGERS = (
    "SELECT evtname::text, evtenabled::text FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D' ORDER BY 1"
)
_IS_SUPERUSER = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER"
_EVENT_TRIGGER = re.compile(r"\d+; \d+ \d+ EVENT TRIGGER - (?P<name>.+) \S+$")  # a line of pg_restore --list
_NEXT = say("correct what it says, then rehearse again; the target's database was not touched.")


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
    searched: unmasked.Searched
    left_out: list[
        str
    ]  # event triggers of the source, and settings of the target, that only a superuser may bring along
    cut_off: list[str]  # logins of the source to foreign servers, which the copy does not have


def look(target: Login, source: Source, accepted: Collection[str] = ()) -> list[str] | None:
    """Read the source; the INVALID indexes that it has. Raises OperatorError when it must not be cloned.

    ``accepted`` as in :func:`outside.require_quiet`.
    """
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
        outside.require_quiet(connection, accepted)
    with connect(target) as connection, connection.cursor() as cursor:
        cursor.execute(_PLACE)
        same = cursor.fetchone() == place
    if same:
        raise OperatorError(
            observed("AMO-2401", "The source and the target are one database: {where}.", where=target.where()),
            expected=say("two: the source is only read, the target is replaced."),
            next_step=say("correct rehearsal_source_login or rehearsal_source_template. Nothing was changed."),
        )
    if fences:
        raise OperatorError(
            observed(
                "AMO-2402", "The source has a write fence: a deployment is under way in {where}.", where=login.where()
            ),
            expected=say("a database that nobody deploys to at the moment."),
            next_step=say("wait for that run, or take it back; then rehearse again. Nothing was changed."),
        )
    return invalid


def require_own(target: Login, environment: str) -> None:
    """Raise OperatorError where another environment was deployed into the database that is to be replaced.

    A copy has no journal of its source: what stands in it was done in this very database.
    """
    with connect(target) as connection, connection.cursor() as cursor:
        if not own_schema.exists(connection):
            return
        cursor.execute(_OTHERS, (environment,))
        others = [name for (name,) in cursor.fetchall()]
    if others:
        raise OperatorError(
            observed(
                "AMO-2428",
                "{where}, which is to be replaced, was deployed to as {others}, and this is {environment}.",
                where=target.where(),
                others=", ".join(others),
                environment=environment,
            ),
            expected=say("the database of this environment alone: it is dropped."),
            next_step=say(
                "correct database_host and database_name of {environment}, or its vault. Where it is certain that "
                "nobody works with this database, as where a dump was restored with its journal: DROP SCHEMA "
                "at_most_one CASCADE in it, then again. Nothing was changed.",
                environment=environment,
            ),
        )


def name_beside(name: str) -> str:
    """Where the copy is made, beside the database of this name: never that name itself, and at most its 63 bytes."""
    return f"{name.encode()[:57].decode(errors='ignore')}_clone"


def make(
    target: Login,
    source: Source,
    masks: Sequence[masking.Mask],
    *,
    maintenance: str,
    search_path: str,
    readable: Collection[str] = (),
    accepted: Collection[str] = (),
) -> Cloned:
    """Replace the target's database by a masked copy of the source; see :mod:`.unmasked` for ``readable``.

    ``accepted`` as in :func:`outside.require_quiet`.
    """
    invalid = look(target, source, accepted)
    beside = replace(target, dbname=name_beside(target.dbname))
    server = replace(target, dbname=maintenance)
    try:
        with _emptied(server, beside.dbname, target.dbname, source.template):
            left_out = [] if source.template else _restore(beside, source, search_path)
            with (
                connect(beside, statement_timeout_ms=0) as connection,
                _without_event_triggers(connection),
                connection.cursor() as cursor,
            ):
                cursor.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(_OURS)))
                outside.require_quiet(connection, accepted)  # a dump file has not been asked yet
                masking.require_rows_here(connection, masks)
                values = unmasked.sample(connection, masks)
                masked = masking.apply(connection, masks)
                unmasked.refresh_views(connection)
                searched = unmasked.search(connection, values, masks, readable)
                cut_off = outside.cut(connection)  # not before: a materialized view may be of a foreign table
            _rewrite(beside, masks)
            left_out += _swap(server, target.dbname, beside.dbname)
    except psycopg2.Error as failure:
        said = explain(
            failure, say("a role that may create databases (CREATEDB), owns the target's, and owns its tables."), _NEXT
        )
        raise OperatorError(
            observed(
                "AMO-2403",
                "The clone could not be made: {message} (SQLSTATE {code}).",
                message=said.message,
                code=failure.pgcode or "none",
            ),
            expected=said.expected,
            next_step=said.next_step,
        ) from failure
    return Cloned(source.name, masked, invalid, searched, left_out, cut_off)


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
    """Encoding, locale and locale provider of the database that is replaced; a template brings its own."""
    if template:
        return sql.SQL("")
    version = cursor.connection.server_version
    columns = ["pg_catalog.pg_encoding_to_char(encoding)::text", "datcollate::text", "datctype::text"]
    columns += ["datlocprovider::text"] if version >= 150000 else ["'c'::text"]
    columns += ["datlocale" if version >= 170000 else "daticulocale"] if version >= 150000 else ["NULL::text"]
    columns += ["daticurules"] if version >= 160000 else ["NULL::text"]
    cursor.execute(f"SELECT {', '.join(columns)} FROM pg_catalog.pg_database WHERE datname = %s", (like,))  # noqa: S608
    encoding, collate, ctype, provider, locale, rules = cursor.fetchone() or (None,) * 6
    wanted = {"ENCODING": encoding, "LC_COLLATE": collate, "LC_CTYPE": ctype}
    if provider not in (None, "c"):
        wanted |= {"LOCALE_PROVIDER": _PROVIDERS[provider]}
        wanted |= {"ICU_LOCALE" if provider == "i" else "BUILTIN_LOCALE": locale, "ICU_RULES": rules}
    return sql.Composed(
        sql.SQL(f" {name} {{}}").format(sql.Literal(value)) for name, value in wanted.items() if value is not None
    )


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
            observed(
                "AMO-2404", "A database {name} is there, and it is not a clone that was left unfinished.", name=name
            ),
            expected=say("that name to be free: the clone is made under it."),
            next_step=say("rename or drop it. Nothing was changed."),
        )
    if found:
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def _without_event_triggers(connection: Connection) -> Iterator[None]:
    """Event triggers of the source, which may refuse or record what is done here, off until the block has ended.

    Only a superuser may switch them; for anybody else a restore has left them out, and those of a template stay on.
    """
    with connection.cursor() as cursor:
        cursor.execute(_IS_SUPERUSER)
        may = cursor.fetchone() == (True,)
        cursor.execute(_EVENT_TRIGGERS)
        triggers = list(cursor.fetchall()) if may else []
        for name, _ in triggers:
            cursor.execute(sql.SQL("ALTER EVENT TRIGGER {} DISABLE").format(sql.Identifier(name)))
        yield
        for name, state in triggers:
            again = sql.SQL("ALTER EVENT TRIGGER {} " + masking.STATES[state])
            cursor.execute(again.format(sql.Identifier(name)))


def _restore(beside: Login, source: Source, search_path: str) -> list[str]:
    """Fill the database from a dump, or from a live database through a pipe: nothing unmasked touches a disk.

    Returns the event triggers that were left out: only a superuser may create one.
    """
    restore = [client_programs.find("pg_restore", search_path), "--exit-on-error", "--no-password", "--no-owner"]
    # Rights and roles are the environment's own; comments on extensions only a superuser may set.
    restore += ["--no-privileges", "--no-comments", "--no-publications", "--no-subscriptions"]
    restore += [f"--exclude-schema={_OURS}", f"--dbname={beside.dbname}"]
    with connect(beside) as connection, connection.cursor() as cursor:
        cursor.execute(_IS_SUPERUSER)
        may = cursor.fetchone() == (True,)
    with client_programs.access(beside) as here, tempfile.TemporaryDirectory() as place:
        if source.login is None:
            left_out, chosen = ([], []) if may else _chosen(restore[0], source.dump, place)
            client_programs.run([*restore, *chosen, source.dump], here, [beside.password], _NEXT)
            return left_out
        dump = [client_programs.find("pg_dump", search_path), "--format=custom", "--compress=0", "--no-password"]
        dump += [f"--exclude-schema={_OURS}"]
        with client_programs.access(source.login) as there:
            secret = [beside.password, source.login.password]
            if may or not _has_event_triggers(source.login):
                _pipe(dump, there, restore, here, secret)
                return []
            # A pipe has no list to choose from. What is made after the rows, and event triggers with it, has no row in
            # it: it may lie in a file for a moment.
            _pipe(dump, there, [*restore, "--section=pre-data", "--section=data"], here, secret)
            after = f"{place}/post-data"
            client_programs.run([*dump, "--section=post-data", f"--file={after}"], there, secret, _NEXT)
            left_out, chosen = _chosen(restore[0], after, place)
            client_programs.run([*restore, *chosen, after], here, secret, _NEXT)
            return left_out


def _has_event_triggers(login: Login) -> bool:
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger)")
        return bool(cursor.fetchone() == (True,))


def _chosen(pg_restore: str, dump: str, place: str) -> tuple[list[str], list[str]]:
    """The event triggers of a dump, and the arguments that make pg_restore leave them out."""
    listed = client_programs.run([pg_restore, "--list", dump], client_programs.no_access(), [], _NEXT).splitlines()
    found = [(line, _EVENT_TRIGGER.match(line)) for line in listed]
    names = [f"event trigger {match['name']}" for _, match in found if match]
    if not names:
        return [], []
    chosen = Path(place) / "list"
    chosen.write_text("".join(f"{line}\n" for line, match in found if not match), encoding="utf-8")
    return names, [f"--use-list={chosen}"]


def _pipe(
    dump: Sequence[str],
    there: client_programs.Access,
    restore: Sequence[str],
    here: client_programs.Access,
    secret: Sequence[str],
) -> None:
    """Run both programs, the first one's output the second one's input. Raises OperatorError with what one said."""
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(  # noqa: S603 (no shell; found by name)
            list(dump), env=dict(there.environment), pass_fds=there.files, stdout=subprocess.PIPE, stderr=said
        ) as reading,
        client_programs.ended_with_its_server(there, reading),
    ):
        failure = None
        try:
            client_programs.run(restore, here, secret, _NEXT, stdin=reading.stdout)
        except OperatorError as failed:
            failure = failed
        if reading.stdout:
            reading.stdout.close()
        reading.wait()
        said.seek(0)
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


def _swap(server: Login, target: str, clone: str) -> list[str]:
    """Give the clone the target's name, rights, settings and limits, and drop what was there.

    Returns the settings that this role may not give it.
    """
    old, new = sql.Identifier(target), sql.Identifier(clone)
    away = sql.Identifier(f"{target}_replaced"[:63])
    with connect(server, autocommit=True, statement_timeout_ms=0) as connection, connection.cursor() as cursor:
        cursor.execute(_GRANTS, (target,))
        grants = cursor.fetchall()
        left_out = _carry_settings(cursor, target, clone)
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
    return left_out


def _carry_settings(cursor: Any, target: str, clone: str) -> list[str]:
    """Give the clone what ALTER DATABASE and ALTER ROLE have set for the target; returns what this role may not."""
    database = sql.Identifier(clone)
    cursor.execute("SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = %s", (target,))
    (limit,) = cursor.fetchone()
    cursor.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(database, sql.Literal(limit)))
    left_out = []
    cursor.execute(_SETTINGS, (target,))
    for role, setting in cursor.fetchall():
        name, _, value = setting.partition("=")
        values = next(csv.reader([value], skipinitialspace=True), [""]) if name in _LISTS else [value]
        whose = sql.SQL("DATABASE {}").format(database)
        if role is not None:
            whose = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), database)
        # A setting of an extension has two names with a dot between, and is quoted as two.
        given = sql.SQL("ALTER {} SET {} TO {}").format(
            whose, sql.Identifier(*name.split(".")), sql.SQL(", ").join(map(sql.Literal, values))
        )
        try:
            cursor.execute(given)
        except psycopg2.errors.InsufficientPrivilege:
            left_out.append(f"setting {name}" + (f" of role {role}" if role else ""))
    return left_out


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
