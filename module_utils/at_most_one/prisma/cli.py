"""``prisma migrate deploy``: called, bounded, retried when a lock was not obtained, and believed only with the catalog.

The connection URL goes into the child's environment and nowhere else; its output passes :func:`output.scrub`
before anybody sees it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg2

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Plan
from ..postgres import locks
from ..postgres.connection import Connection, Hold, Login, answering, connect, unheld
from ..postgres.lock_retry import pause_s
from ..postgres.locks import Watch
from ..system import commands
from ..verdicts import word
from . import files, migration_history
from .output import error_code, first_lines, scrub

_POLL_S = 0.05
_SESSION_END_S = 10
_STATUS_S = 180


@dataclass(frozen=True)
class Limits:
    """How long and how often. ``timeout_s`` bounds one call, ``deadline_s`` all of them together, waits included."""

    attempts: int
    deadline_s: float
    timeout_s: float
    lock_timeout_ms: int
    statement_timeout_ms: int = 60_000  # of the looks at catalog and history between the calls


@dataclass(frozen=True)
class Call:
    """One finished call; ``returncode`` is ``None`` when it had to be ended. ``output`` holds no secrets."""

    returncode: int | None
    output: str
    seconds: float


@dataclass(frozen=True)
class Deployed:
    """A deploy that succeeded, with its cost."""

    attempts: int
    seconds: float
    verdict: migration_history.Verdict


class PartlyBuilt(OperatorError):
    """A lock was not obtained after some of the planned indexes were built, which stay: Prisma must not run again."""

    attempts: int = 0
    holders: tuple[dict[str, Any], ...] = ()


def deploy(
    login: Login,
    plan: Plan,
    release: Path,
    limits: Limits,
    *,
    catalog: Callable[[Connection], migration_history.Built],
    watch: Watch,
    environment_path: str | None = None,
    hold: Hold = unheld,
) -> Deployed:
    """Run ``prisma migrate deploy`` until the plan's migration is applied and the catalog agrees.

    Only a lock that was not obtained is tried again, after the failed row has been marked rolled back. ``catalog`` says
    what is built, asked afresh after each call. Raises PartlyBuilt when such an attempt has left some of the indexes
    (an adapter sends the migration statement by statement), OperatorError with the history's verdict and its repair
    otherwise.
    """
    started = time.monotonic()
    deadline = started + limits.deadline_s
    for attempt in range(1, limits.attempts + 1):
        wait_for_migration_lock(watch.connection, deadline)
        timeout_s = max(1.0, min(limits.timeout_s, deadline - time.monotonic()))
        watch.build_wait_ms = 0
        hold(watch.connection)  # before and after: Prisma's own transaction cannot hold the run
        call = call_prisma(
            "deploy", login, plan.schema, release, environment_path, limits.lock_timeout_ms, timeout_s, watch
        )
        if call.returncode is None:  # its session is gone, but its lock may be so only in a moment
            wait_for_migration_lock(watch.connection, time.monotonic() + 10)
        with connect(
            login, lock_timeout_ms=limits.lock_timeout_ms, statement_timeout_ms=limits.statement_timeout_ms
        ) as connection:
            hold(connection)
            built = catalog(connection)
            history = migration_history.read_history(connection, plan.schema)
            verdict = migration_history.judge(history, files.read_migrations(release), plan.migration, built.exact)
            if call.returncode == 0 and verdict.verdict == "applied":
                return Deployed(attempt, round(time.monotonic() - started, 1), verdict)
            if not _lost_a_lock(call, verdict, watch.build_wait_ms, limits.lock_timeout_ms):
                raise _failure(call, verdict, plan, built, release)
            if built.existing:
                raise _partly_built(plan, watch, attempt, limits, built)
            if verdict.verdict == "failed":
                migration_history.mark_rolled_back(connection, plan.schema, plan.migration, built.existing)
        pause = pause_s(attempt, first_s=0.25, longest_s=5)
        if attempt == limits.attempts or time.monotonic() + pause > deadline:
            break
        time.sleep(pause)
    ended_by = (
        f"migrate_attempts={limits.attempts} with migrate_lock_timeout_ms={limits.lock_timeout_ms}"
        if attempt == limits.attempts
        else f"migrate_deadline_s={limits.deadline_s:g}"
    )
    raise OperatorError(
        observed(
            "AMO-3701",
            "No lock on {locked} in {attempt} attempt(s) of {lock_timeout_ms} ms, ended by {ended_by}; {sessions}.",
            locked=_locked(watch, plan),
            attempt=attempt,
            lock_timeout_ms=limits.lock_timeout_ms,
            ended_by=ended_by,
            sessions=locks.describe(watch.blockers),
        ),
        expected=say("a moment without a long transaction on these tables."),
        next_step=say(
            "{ending}; then ansible-playbook deploy.yml -l <environment> again: nothing was applied, "
            "the history is ready for it.",
            ending=locks.ending(watch.blockers),
        ),
        cause="lock_timeout",
        attempts=attempt,
        holders=watch.blockers,
        write_pause_ms=watch.write_pause_ms,
    )


def _partly_built(
    plan: Plan, watch: Watch, attempt: int, limits: Limits, built: migration_history.Built
) -> PartlyBuilt:
    stop = PartlyBuilt(
        observed(
            "AMO-3722",
            "No lock on {locked} within migrate_lock_timeout_ms={lock_timeout_ms}; {sessions}. Built before "
            "it: {built}.",
            locked=_locked(watch, plan),
            lock_timeout_ms=limits.lock_timeout_ms,
            sessions=locks.describe(watch.blockers),
            built=", ".join(built.existing),
        ),
        expected=say("a moment without a long transaction on these tables."),
        next_step=say(
            "{ending}; then ansible-playbook deploy.yml -l <environment> again. The migration does "
            "more than build indexes, so Prisma has to run all of it: where those were not taken "
            "back already, ansible-playbook rollback.yml -l <environment> comes first.",
            ending=locks.ending(watch.blockers),
        ),
        cause="lock_timeout",
        attempts=attempt,
        holders=watch.blockers,
        existing=list(built.existing),
        write_pause_ms=watch.write_pause_ms,
    )
    stop.attempts, stop.holders = attempt, tuple(watch.blockers)
    return stop


def _locked(watch: Watch, plan: Plan) -> str:
    """The tables whose lock was waited for, as far as a sample has seen it."""
    return ", ".join(f"{plan.schema}.{table}" for table in watch.blocked) or say(
        "the tables of plan {plan_id}", plan_id=plan.id
    )


def confirm(
    login: Login, plan: Plan, release: Path, limits: Limits, *, watch: Watch, environment_path: str | None = None
) -> None:
    """Let Prisma itself agree with a migration that was recorded: nothing to deploy, and a status without complaint.

    Judged by exit codes and by the history, which must be the same row by row afterwards. Raises OperatorError.
    """
    timeouts: dict[str, Any] = {
        "lock_timeout_ms": limits.lock_timeout_ms,
        "statement_timeout_ms": limits.statement_timeout_ms,
    }
    with connect(login, **timeouts) as connection:
        before = migration_history.read_history(connection, plan.schema)
    for command in ("deploy", "status"):
        call = call_prisma(
            command,
            *(login, plan.schema, release, environment_path),
            *(limits.lock_timeout_ms, limits.timeout_s, watch),
        )
        with connect(login, **timeouts) as connection:
            after = migration_history.read_history(connection, plan.schema)
        if call.returncode == 0 and after == before:
            continue
        ended = (
            say("had to be stopped")
            if call.returncode is None
            else say("ended with exit code {returncode}", returncode=call.returncode)
        )
        lines = first_lines(call.output)
        raise OperatorError(
            observed(
                "AMO-3702",
                "The indexes are built and migration {migration} is recorded, but `prisma migrate {command}`"
                " {ended}{changed}.{said}",
                migration=plan.migration,
                command=command,
                ended=ended,
                changed=say(" and changed the history") if after != before else "",
                said=say(" It said: {lines}", lines=" | ".join(lines)) if lines else "",
            ),
            expected=say("exit code 0 and nothing to do."),
            next_step=say(
                "read what it said; the record is true and the catalog holds the planned indexes. Once "
                "Prisma agrees, run again."
            ),
            cause="prisma",
            returncode=call.returncode,
            code=error_code(call.output),
            output=lines,
        )


def call_prisma(
    command: str,
    login: Login,
    schema: str,
    release: Path,
    environment_path: str | None,
    lock_timeout_ms: int,
    timeout_s: float,
    watch: Watch,
) -> Call:
    """One ``prisma migrate <command>``, watched while it runs and ended after ``timeout_s``.

    Ended means with all its children and with its sessions: a statement that waits in the server would go on without
    its client, so they are known by a name that no other call has. It is ended, too, when the server has stopped
    answering, which neither of Prisma's engines notices: OperatorError says so.
    """
    name = f"at-most-one-prisma-{secrets.token_hex(6)}"
    url = connection_url(login, schema, lock_timeout_ms, name)

    def sample() -> None:
        with contextlib.suppress(psycopg2.Error):  # a lost sample must not end a migration half-way
            watch.sample()

    ended = commands.run(
        _arguments(command, release),
        release,
        _environment(url, environment_path),
        timeout_s,
        meanwhile=sample,
        cut_short=lambda: end_sessions(watch.connection, name),
        guarded=lambda running, end: server_answers(login, running, end),
    )
    return Call(ended.returncode, scrub(ended.output, login), ended.seconds)


def require_own_address(login: Login, schema: str, release: Path, environment_path: str | None = None) -> None:
    """Raise OperatorError unless ``prisma migrate status`` connects to the address in its DATABASE_URL.

    That is one on this machine which hangs up at once. What takes its address elsewhere, from a .env file or in
    prisma.config.ts, never comes there, and would migrate another database than the one that rows leave.
    """
    calls: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nobody.setblocking(False)

        def hang_up() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    calls.append(nobody.accept()[0])
                    calls[-1].close()

        url = connection_url(replace(login, host="127.0.0.1", port=nobody.getsockname()[1]), schema, 0)
        environment = _environment(url, environment_path)
        ended = commands.run(_arguments("status", release), release, environment, _STATUS_S, meanwhile=hang_up)
        hang_up()
    if calls:
        return
    lines = first_lines(scrub(ended.output, login))
    raise OperatorError(
        observed(
            "AMO-3723",
            "`prisma migrate status` {how} and has not connected to the address in DATABASE_URL.{said}",
            how=commands.how(ended),
            said=say(" It said: {lines}", lines=" | ".join(lines)) if lines else say(" It said nothing."),
        ),
        expected=say("a Prisma that migrates the database of this run. Nothing was touched."),
        next_step=say(
            "take url (schema.prisma) or datasource.url (prisma.config.ts) from DATABASE_URL, and directUrl, if it is"
            " there, from DIRECT_URL: both name this database here, whatever a .env file says. Where Prisma itself has"
            " failed, correct what it said. Commit it, and deploy that commit."
        ),
        cause="prisma",
        returncode=ended.returncode,
        code=error_code(ended.output),
        output=lines,
    )


def _arguments(command: str, release: Path) -> list[str]:
    """What starts Prisma's own command line of the release."""
    executable = release / "node_modules" / ".bin" / "prisma"
    if not executable.exists():
        raise OperatorError(
            observed("AMO-3706", "{executable} does not exist.", executable=executable),
            expected=say("a release in which `npm ci` has installed Prisma's CLI."),
            next_step=say("check release_path, and that prisma is among the dependencies that production installs."),
        )
    return [str(executable), "migrate", command]


def _environment(url: str, environment_path: str | None) -> dict[str, str]:
    """What Prisma gets. By custom directUrl reads DIRECT_URL, for which a .env file would have another address."""
    path = os.environ.get("PATH", os.defpath)
    return {
        **os.environ,
        "PATH": f"{environment_path}{os.pathsep}{path}" if environment_path else path,
        "DATABASE_URL": url,
        "DIRECT_URL": url,
        "CHECKPOINT_DISABLE": "1",
        "PRISMA_HIDE_UPDATE_MESSAGE": "1",
        "NO_COLOR": "1",
    }


def connection_url(login: Login, schema: str, lock_timeout_ms: int, name: str = "at-most-one-prisma") -> str:
    """The URL for Prisma's environment: the short lock_timeout, and the schema for both of Prisma's engines.

    The Rust engine takes the schema from ``schema``; with a JavaScript adapter only ``options`` reach the server. So
    the session's name stands in both as well.
    """
    # Inside `options` a backslash escapes a space; inside search_path double quotes keep capitals and other characters.
    identifier = '"' + schema.replace('"', '""') + '"'
    search_path = re.sub(r"([\\\s])", r"\\\1", identifier)
    return login.url(
        schema=schema,
        application_name=name,
        options=f"-c lock_timeout={lock_timeout_ms} -c application_name={name} -c search_path={search_path}",
    )


def _lost_a_lock(call: Call, verdict: migration_history.Verdict, waited_ms: int, lock_timeout_ms: int) -> bool:
    """Whether a lock was not obtained: PostgreSQL's 55P03, or 40P01 where a session took the tables' locks in another
    order; Prisma's P1002 for its own advisory lock.

    The Rust engine prints the SQLSTATE, and keeps it in the row's logs; the JavaScript engine prints only the message,
    in the server's language. So a build that was seen waiting to the end of lock_timeout counts as well: were it wrong,
    the next attempt would tell.
    """
    if call.returncode in (0, None):
        return False
    logs = verdict.row.logs if verdict.row is not None and verdict.row.failed else None
    text = f"{call.output}\n{logs or ''}"
    said = ("55P03", "lock timeout", "40P01", "deadlock detected")
    if any(words in text for words in said) or error_code(call.output) == "P1002":
        return True
    return 0 < lock_timeout_ms <= waited_ms + 3 * _POLL_S * 1000


def _failure(
    call: Call, verdict: migration_history.Verdict, plan: Plan, built: migration_history.Built, release: Path
) -> OperatorError:
    code, lines = error_code(call.output), first_lines(call.output)
    duplicates = built.duplicates > 0 or "23505" in call.output or "Unique constraint failed" in call.output
    if call.returncode is None:
        how = say("did not end within {seconds} s and was stopped", seconds=call.seconds)
    else:
        how = (
            say("ended with exit code {returncode} and {code}", returncode=call.returncode, code=code)
            if code
            else say("ended with exit code {returncode}", returncode=call.returncode)
        )
    repair = migration_history.repair_in(verdict, release)
    said = say(" It said: {lines}", lines=" | ".join(lines)) if lines else say(" It said nothing.")
    return OperatorError(
        observed(
            "AMO-3707",
            "`prisma migrate deploy` {how}; the history's verdict on {migration} is {verdict}.{said}",
            how=how,
            migration=plan.migration,
            verdict=word(verdict.verdict),
            said=said,
        ),
        expected=say("exit code 0, the migration recorded as applied, and exactly the planned indexes in the catalog."),
        next_step=(
            say("run the cleanup phase again: duplicates were committed before the index. {repair}", repair=repair)
            if duplicates
            else repair
        ),
        cause="timeout" if call.returncode is None else "duplicates" if duplicates else "prisma",
        returncode=call.returncode,
        code=code,
        history=verdict.verdict,
        duplicates_left=built.duplicates,
        output=lines,
    )


def wait_for_migration_lock(connection: Connection, deadline: float) -> None:
    """Poll until nobody holds Prisma's lock: a blocking wait would deadlock with a concurrent build."""
    started = time.monotonic()
    while (holder := migration_history.advisory_holder(connection)) is not None:
        if time.monotonic() >= deadline:
            migration_history.refuse_lock(holder, waited_s=time.monotonic() - started)
        time.sleep(_POLL_S)


@contextlib.contextmanager
def server_answers(login: Login, running: Callable[[], bool], end: Callable[[], None]) -> Iterator[None]:
    """End a command that waits for a server that has stopped answering. Raises OperatorError that says so."""
    with answering(login, running, end) as watched:
        yield
        if watched.noticed:  # the command was ended for it
            raise psycopg2.OperationalError("the server has stopped answering")


def end_sessions(connection: Connection, name: str) -> None:
    """End exactly the sessions of that name and wait until they are gone: then the catalog is final."""
    deadline = time.monotonic() + _SESSION_END_S
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity"
                " WHERE application_name = %s AND pid <> pg_backend_pid()",
                (name,),
            )
            if cursor.fetchone() == (0,):
                return
            time.sleep(_POLL_S)
