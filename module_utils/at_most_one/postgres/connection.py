"""Open connections with fixed session settings: timeouts, output formats, and no row level security in silence."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from ..errors import OperatorError
from ..findings import observed, say
from . import silence
from .server_errors import first_line

Connection = psycopg2.extensions.connection
Hold = Callable[[Connection], None]  # begins a writing transaction, and refuses it to a run that lost its plan: journal


def unheld(_: Connection) -> None:
    """The :data:`Hold` of who writes without a run."""


# Text output must not depend on the server's or the role's settings: hashes and archived rows are made of it. With an
# empty search_path every name has to be qualified. row_security=off turns a role's false zero into an error (42501).
# Batches rely on READ COMMITTED. default_transaction_read_only is left: it says that nobody shall write.
_SESSION = {
    "search_path": "",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "client_encoding": "UTF8",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "exit_on_error": "off",
    "row_security": "off",
    "client_min_messages": "warning",
    "temp_buffers": "64MB",  # for the work list of a clean-up; nothing is taken before a temporary table is used
}
# Those of them that the text of a value depends on, and what it is read as.
TEXT_SETTINGS = {
    name: _SESSION[name]
    for name in (
        *(
            "datestyle",
            "intervalstyle",
            "timezone",
            "bytea_output",
            "extra_float_digits",
            "standard_conforming_strings",
        ),
        *("client_encoding", "lc_monetary", "xmlbinary", "array_nulls", "quote_all_identifiers"),
    )
}
# libpq makes settings of these variables of its environment, and sends them so that they overrule ours.
_OVERRULING = ("PGTZ", "PGDATESTYLE", "PGGEQO", "PGCLIENTENCODING")
# Settings that not every server has, so that they cannot be asked for at connect: what would end a session that waits
# for another program. And a commit that is reported before it would outlive a crash. Then those that were asked for at
# connect, where a login event trigger (PostgreSQL 17) has set them since.
_SET_WHERE_KNOWN = """
SELECT pg_catalog.current_setting(%(mark)s, true), pg_catalog.current_setting('session_replication_role'),
    (SELECT pg_catalog.count(pg_catalog.set_config(name, value, false))
     FROM (VALUES ('idle_session_timeout', '0', ''), ('transaction_timeout', '0', ''),
         ('synchronous_commit', 'on', 'off')) AS known (name, value, instead_of)
     WHERE pg_catalog.current_setting(%(mark)s, true) = %(value)s
         AND pg_catalog.current_setting(name, true) IS NOT NULL
         AND instead_of IN ('', pg_catalog.current_setting(name, true))),
    (SELECT pg_catalog.count(pg_catalog.set_config(name, value, false))
     FROM unnest(%(names)s::text[], %(values)s::text[]) AS asked (name, value)
     WHERE pg_catalog.current_setting(%(mark)s, true) = %(value)s
         AND pg_catalog.current_setting(name, true) <> value)"""
# A setting that no server has, with a value that no other connection has: who is told it back talks to a session that
# was started with this connection's settings.
_MARK = "at_most_one.session"
# What poolers say of settings that a client brings along: PgBouncer, RDS Proxy. The third is PgBouncer's too, when no
# server connection came free for as long as it lets a client wait.
_POOLER_SAYS = ("unsupported startup parameter", "command-line options", "query_wait_timeout")

# A network that is gone refuses nothing, and every timeout of the session is the server's: without these a call waits
# for two hours, or for ever. The server is asked after so many seconds of silence, and given up after half a minute;
# one that works on a long statement still answers. https://www.postgresql.org/docs/current/libpq-connect.html
NETWORK = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
CONNECT_TIMEOUT_S = 10  # of a connection of ours, and of those of pg_dump and pg_restore


VERIFYING = ("verify-ca", "verify-full")  # the modes that ask who the server is
# What libpq says when TLS fails before the login: the certificate, its name, its file, a server without TLS.
_TLS_SAYS = ("certificate", "SSL error", "does not support SSL", "private key file")


@dataclass(frozen=True)
class Login:
    """Where the database is. The password is never part of the representation."""

    host: str
    port: int
    dbname: str
    user: str
    password: str = field(repr=False)
    sslmode: str = "prefer"
    sslrootcert: str = ""
    sslcert: str = ""
    sslkey: str = ""

    def url(self, **parameters: str) -> str:
        """The connection URL with the password in it, for Prisma's environment only: never log it.

        Prisma's engine knows no verify-full and would fall back to prefer: its words for it are require and strict, and
        it calls the authority's file sslcert. https://www.prisma.io/docs/orm/overview/databases/postgresql
        """
        tls = {"sslmode": self.sslmode}
        if self.sslmode in VERIFYING:
            tls = {"sslmode": "require", "sslaccept": "strict"}
            if self.sslrootcert and self.sslrootcert != "system":
                tls["sslcert"] = self.sslrootcert
        query = urlencode({**tls, **parameters}, quote_via=quote)
        secret = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        host = f"[{self.host}]" if ":" in self.host else self.host  # an IPv6 address: RFC 3986, section 3.2.2
        return f"postgresql://{secret}@{host}:{self.port}/{quote(self.dbname, safe='')}?{query}"

    def tls_files(self) -> dict[str, str]:
        """The files that TLS is given, by libpq's names; without those that are left to libpq."""
        given = {"sslrootcert": self.sslrootcert, "sslcert": self.sslcert, "sslkey": self.sslkey}
        return {name: path for name, path in given.items() if path}

    def where(self) -> str:
        """The place, for a person: no password."""
        return f"{self.user}@{self.host}:{self.port}/{self.dbname}"


def lost(failure: psycopg2.Error) -> bool:
    """Whether the connection is gone: the backend was ended, the server stopped, the network broke."""
    if failure.pgcode is None:
        return isinstance(failure, (psycopg2.OperationalError, psycopg2.InterfaceError))
    return failure.pgcode.startswith(("08", "57P"))


@contextlib.contextmanager
def connect(
    login: Login,
    *,
    lock_timeout_ms: int = 3_000,
    statement_timeout_ms: int = 60_000,
    autocommit: bool = False,
) -> Iterator[Connection]:
    """A connection that commits when the block ends well, rolls back when it does not, and is always closed.

    Zero disables a timeout (CREATE INDEX CONCURRENTLY must not have a lock_timeout). Raises OperatorError when there is
    no connection: an unreachable database is never an empty one. Nor is there one through a pooler that keeps the
    settings to itself, in any of its modes: one question tells, before anything else is sent.
    """
    settings: Mapping[str, str] = {
        **_SESSION,
        "lock_timeout": _shown(lock_timeout_ms),
        "statement_timeout": _shown(statement_timeout_ms),
        "idle_in_transaction_session_timeout": _shown(60_000),
    }
    connection = _open(login, settings)
    try:
        connection.autocommit = autocommit
        with answering(login, lambda: _is_waiting(connection), lambda: _hang_up(connection)):
            yield connection
            if not autocommit:
                connection.commit()
    except psycopg2.errors.ReadOnlySqlTransaction as refused:  # 25006: a standby, or default_transaction_read_only
        raise _read_only(login, connection, refused) from refused
    except psycopg2.Error as failure:
        if not lost(failure):
            raise
        raise OperatorError(
            observed(
                "AMO-3107",
                "The connection to {where} was lost: {first_line}.",
                where=login.where(),
                first_line=first_line(failure),
            ),
            expected=say("a connection that lasts, to a server that answers."),
            next_step=say(
                "check the server and the network, then run the same again: what was committed stays, "
                "and it goes on from there."
            ),
            database=login.where(),
        ) from failure
    finally:
        connection.close()  # rolls back what was not committed


@contextlib.contextmanager
def answering(login: Login, waiting: Callable[[], bool], give_up: Callable[[], None]) -> Iterator[silence.Silence]:
    """Give up what waits for a server that has stopped answering. Raises OperatorError that says so in place of an
    error of the block; a block that ends well has not needed the server."""
    with silence.watched(waiting, lambda: _answers(login), give_up) as watched:
        try:
            yield watched
        except (psycopg2.Error, OperatorError) as failure:
            if not watched.noticed:
                raise
            raise OperatorError(
                observed(
                    "AMO-3108",
                    "{where} has stopped answering: a new connection got no answer either, {tries} times, "
                    "for {try_s} seconds each.",
                    where=login.where(),
                    tries=silence.TRIES,
                    try_s=silence.TRY_S,
                ),
                expected=say("a server that answers, or that refuses."),
                next_step=say(
                    "see whether its machine, its disk or its processes are frozen. A statement that had "
                    "reached it may still be carried out once it goes on; then run the same again: it reads "
                    "what is there."
                ),
                database=login.where(),
            ) from failure


def _is_waiting(connection: Connection) -> bool:
    return bool(connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_ACTIVE)


def _hang_up(connection: Connection) -> None:
    """End the socket below libpq, which then reports a lost connection to the thread that waits in it."""
    with socket.socket(fileno=os.dup(connection.fileno())) as below:
        below.shutdown(socket.SHUT_RDWR)


# What a connection fails with that has reached nobody. One that is refused has: a server that restarts is like that.
_UNREACHED = tuple(
    map(os.strerror, (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EINVAL))
)


def _answers(login: Login) -> bool:
    """Whether the server says anything to a new connection, a refusal included, rather than nothing at all."""
    try:
        psycopg2.connect(**_place(login), connect_timeout=silence.TRY_S, application_name="at-most-one").close()
    except psycopg2.OperationalError as failure:
        return not any(words in str(failure) for words in ("timeout expired", *_UNREACHED))
    return True


def _shown(ms: int) -> str:
    """So many milliseconds as the server shows them: 3s for 3000."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms" if ms else "0"


def _place(login: Login) -> dict[str, Any]:
    """Where to connect to and as whom, in libpq's words."""
    return {
        "host": login.host,
        "port": login.port,
        "dbname": login.dbname,
        "user": login.user,
        "password": login.password,
        "sslmode": login.sslmode,
        **login.tls_files(),
        **NETWORK,
    }


def _open(login: Login, settings: Mapping[str, str]) -> Connection:
    """A connection in autocommit on which the settings are in force. Raises OperatorError when there is none."""
    settings = {**settings, _MARK: secrets.token_hex(8)}
    for name in _OVERRULING:
        os.environ.pop(name, None)
    connection: Connection | None = None
    try:
        connection = psycopg2.connect(
            **_place(login),
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="at-most-one",
            # At connect, not by SET: through a transaction pooler SET would change a connection that the application
            # gets next. Inside `options` a backslash keeps a space.
            options=" ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items()),
        )
        connection.autocommit = True
        in_force = _in_force(login, connection, settings)
    except OperatorError:  # the server was given up, or its role cannot do what is asked of it
        if connection is not None:
            connection.close()
        raise
    except psycopg2.Error as failure:
        said = str(failure)
        if connection is not None:
            said = connection.info.error_message or said  # the last words before the connection was closed, if any
            connection.close()
        _refuse(login, said, failure)
    if not in_force:
        connection.close()
        raise _pooler(login, say("the settings that the connection asked for are not in force"))
    return connection


def _in_force(login: Login, connection: Connection, settings: Mapping[str, str]) -> bool:
    """Whether the settings that were asked for are those of the session; the rest of them are set then.

    A server may accept the login and freeze before it answers this. Raises OperatorError that says so, and for a
    session in which triggers and foreign keys do not act: only a superuser could change that.
    """
    mark = settings[_MARK]
    asked = {"names": list(settings), "values": list(settings.values())}
    with answering(login, lambda: _is_waiting(connection), lambda: _hang_up(connection)), connection.cursor() as cursor:
        cursor.execute(_SET_WHERE_KNOWN, {"mark": _MARK, "value": mark, **asked})
        ((told, acting, *_),) = cursor.fetchall()
        if told == mark:
            connection.set_client_encoding(settings["client_encoding"])  # psycopg2 reads it once, at the login
    if told == mark and acting == "replica":
        raise OperatorError(
            observed(
                "AMO-3119",
                "session_replication_role is replica in the sessions of {where}: triggers and foreign keys do not act "
                "on what is written.",
                where=login.where(),
            ),
            expected=say("origin, PostgreSQL's default, as in the application's sessions."),
            next_step=say(
                "see where it is set, then reset it: psql -c '\\drds'; as a superuser, ALTER ROLE {user} RESET "
                "session_replication_role, or ALTER DATABASE the same.",
                user=login.user,
            ),
            database=login.where(),
        )
    return bool(told == mark)


def _refuse(login: Login, said: str, failure: psycopg2.Error) -> NoReturn:
    reason = (said.strip().splitlines() or [say("no reason given")])[0]
    if any(words in reason for words in _POOLER_SAYS):
        raise _pooler(login, reason) from failure
    if any(words in reason for words in _TLS_SAYS):
        raise OperatorError(
            observed(
                "AMO-3109",
                "No trusted connection to {where}: {reason} (database_sslmode is {sslmode}).",
                where=login.where(),
                reason=reason,
                sslmode=login.sslmode,
            ),
            expected=say(
                "a server that speaks TLS with a certificate for this host name, by the authority whose "
                "certificate is in {sslrootcert}.",
                sslrootcert=login.sslrootcert or say("~/.postgresql/root.crt (database_sslrootcert is not set)"),
            ),
            next_step=say(
                "give database_sslrootcert the file of the provider's authority, on the gateway host; "
                "what the server shows: openssl s_client -starttls postgres -showcerts -connect "
                "{host}:{port}",
                host=login.host,
                port=login.port,
            ),
            database=login.where(),
        ) from failure
    raise OperatorError(
        observed("AMO-3110", "No connection to {where}: {reason}.", where=login.where(), reason=reason),
        expected=say("a PostgreSQL server that accepts this login; whether there are duplicates is unknown, not 0."),
        next_step=say(
            "check database_host, database_port, database_user and vault_database_password of this "
            "inventory, and that the server is up and reachable from the gateway host."
        ),
        database=login.where(),
    ) from failure


def _read_only(login: Login, connection: Connection, refused: psycopg2.Error) -> OperatorError:
    """Says who forbids to write: the server, as a standby, or a setting. PostgreSQL 13 does not report which."""
    told = connection.info.parameter_status
    if told("in_hot_standby") == "off" and told("default_transaction_read_only") == "on":
        return OperatorError(
            observed(
                "AMO-3120",
                "{where} takes no writes: {first_line}. It is the primary, and default_transaction_read_only is on in "
                "these sessions.",
                where=login.where(),
                first_line=first_line(refused),
            ),
            expected=say("off, PostgreSQL's default, where a run is to write."),
            next_step=say(
                "ask who has set it: it says that nobody shall write. Then see where it is set, and reset it: psql -c "
                "'\\drds'; ALTER ROLE {user} RESET default_transaction_read_only, or ALTER DATABASE the same; where "
                "neither has it, postgresql.conf or a login event trigger (psql -c '\\dy') does. Then run the same "
                "again.",
                user=login.user,
            ),
            database=login.where(),
        )
    return OperatorError(
        observed(
            "AMO-3106",
            "{where} takes no writes: {first_line}.",
            where=login.where(),
            first_line=first_line(refused),
        ),
        expected=say("the primary. A standby (in recovery) only reads."),
        next_step=say("point database_host at the primary; when it is, look for default_transaction_read_only."),
        database=login.where(),
    )


def _pooler(login: Login, how: str) -> OperatorError:
    return OperatorError(
        observed("AMO-3111", "{where} is a connection pooler, not the server: {how}.", where=login.where(), how=how),
        expected=say("a connection to the server itself: locks and settings of a session must stay with it."),
        next_step=say(
            "give database_host and database_port the server's own address (the pooler's session "
            "mode is not enough: it does not pass the settings on either); the application keeps its "
            "pooler."
        ),
        database=login.where(),
    )
