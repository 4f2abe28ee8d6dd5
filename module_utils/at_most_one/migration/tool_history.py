"""The history that a migration tool keeps of the plan's migration: asked and changed by three commands of the tool.

Our own statements build and drop the indexes; the tool runs none of them. Its commands are lists of arguments, run
without a shell. Where the database is, they learn from their environment alone, so that no process list and no log has
it. What they say they have done is believed once the status command says it too.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from ..errors import OperatorError
from ..findings import observed, say
from ..postgres.connection import Hold, Login, connect, unheld
from ..prisma import cli
from ..prisma.output import scrub
from ..system.commands import CommandSettings, Ended, how, run, said
from ..system.redaction import redact
from ..verdicts import word

APPLIED, PENDING, LATER = "applied", "pending", "later"
# What the status command's exit code says. Interpreters, shells and tools end with other codes when they fail.
_ANSWERS = {0: APPLIED, 3: PENDING, 4: LATER}
_PLACEHOLDER = re.compile(r"\{(migration|schema|url|address|host|port|dbname|user|password)\}")


@dataclass(frozen=True)
class Commands(CommandSettings):
    """The tool's three commands. Their environment has libpq's variables, too."""

    status: tuple[str, ...]
    applied: tuple[str, ...]
    not_applied: tuple[str, ...]


@dataclass(frozen=True)
class ToolHistory:
    """The history that a tool keeps of one migration in one database, or in one schema of it."""

    login: Login
    migration: str
    commands: Commands
    schema: str = ""  # the plan's

    @property
    def _named(self) -> dict[str, str]:
        """What an argument of a command may name."""
        return {"migration": self.migration, "schema": self.schema}

    def status(self) -> str:
        """Ask the tool: applied, pending, or later (applied, and others on top of it). Raises OperatorError."""
        call = self._run(self.commands.status, self.login)
        if call.returncode not in _ANSWERS:
            raise OperatorError(
                observed(
                    "AMO-3630",
                    "The status of migration {migration} is not known: {command} {ended}.{said}",
                    command=self._shown(self.commands.status),
                    ended=how(call),
                    migration=self.migration,
                    said=said(call),
                ),
                expected=say(
                    "exit code 0 (applied), 3 (not applied, and all before it are) or 4 (applied, and later ones too)."
                ),
                next_step=say(
                    "run it by hand in {path} on the database runner until it answers; docs/adapters.md has the"
                    " contract.",
                    path=self.commands.path,
                ),
                cause="tool",
                returncode=call.returncode,
            )
        return _ANSWERS[call.returncode]

    def require_own_database(self) -> None:
        """Raise OperatorError unless the tool asks the database that its environment names.

        Sent where no server can be, it must not answer: else it has read its address elsewhere, and whatever it says
        is about another database. One that goes on trying to connect for all its time has not answered either.
        """
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # never listens: every connection is refused at once
            nowhere = replace(self.login, host="127.0.0.1", port=nobody.getsockname()[1])
            call = self._run(self.commands.status, nowhere)
        if call.returncode in _ANSWERS:
            raise OperatorError(
                observed(
                    "AMO-3631",
                    "{command} {ended} although its environment named a server that does not exist: it asks another"
                    " database than this run.",
                    command=self._shown(self.commands.status),
                    ended=how(call),
                ),
                expected=say(
                    "a command that takes the database from its environment, and that ends with another code when it"
                    " cannot connect."
                ),
                next_step=say(
                    "let the tool's settings read migrate_history.environment, or PGHOST and libpq's other variables,"
                    " which are always set."
                ),
                cause="tool",
            )

    def mark(self, wanted: str, hold: Hold = unheld, **timeouts: Any) -> None:
        """Have the tool record the migration as ``wanted``, applied or pending, and ask it whether it has.

        The run is held before and after: the tool's own transaction cannot hold it. Raises OperatorError.
        """
        command = self.commands.applied if wanted == APPLIED else self.commands.not_applied
        for act in (lambda: self._change(command), lambda: self._require(wanted, command)):
            with connect(self.login, **timeouts) as connection:
                hold(connection)
            act()

    def refuse_later(self) -> None:
        """Refuse to take the migration out of a history in which later ones stand on it."""
        raise OperatorError(
            observed(
                "AMO-3634",
                "{command} says that later migrations than {migration} are applied: the tool would forget them"
                " together with it.",
                command=self._shown(self.commands.status),
                migration=self.migration,
            ),
            expected=say("{migration} as the last applied migration. Nothing was touched.", migration=self.migration),
            next_step=say(
                "take the later ones back with the tool, then ansible-playbook rollback.yml -l <environment> again."
            ),
            cause="tool",
        )

    def require_applied(self) -> str:
        """The status, which must not be pending. Raises OperatorError."""
        status = self.status()
        if status == PENDING:
            raise OperatorError(
                observed(
                    "AMO-3635",
                    "The planned indexes hold, and {command} says that migration {migration} is not applied.",
                    command=self._shown(self.commands.status),
                    migration=self.migration,
                ),
                expected=say("exit code 0: the migrate phase has the tool record it."),
                next_step=say("ansible-playbook deploy.yml -l <environment> builds nothing again and records it."),
                cause="tool",
            )
        return status

    def shown(self, wanted: str) -> str:
        """The command that :meth:`mark` runs, for a person."""
        return self._shown(self.commands.applied if wanted == APPLIED else self.commands.not_applied)

    def _change(self, command: tuple[str, ...]) -> None:
        call = self._run(command, self.login)
        if call.returncode != 0:
            raise OperatorError(
                observed(
                    "AMO-3632",
                    "The migration tool has not changed its history: {command} {ended}.{said}",
                    command=self._shown(command),
                    ended=how(call),
                    said=said(call),
                ),
                expected=say("exit code 0, and the tool's history changed."),
                next_step=say(
                    "correct what it names, in {path} on the database runner, then run the same playbook again: what"
                    " is done stays done.",
                    path=self.commands.path,
                ),
                cause="tool",
                returncode=call.returncode,
            )

    def _require(self, wanted: str, command: tuple[str, ...]) -> None:
        status = self.status()
        if (status == PENDING) != (wanted == PENDING):
            raise OperatorError(
                observed(
                    "AMO-3633",
                    "{command} ended with exit code 0 and has recorded nothing: {status_command} says {status} of"
                    " migration {migration}.",
                    command=self._shown(command),
                    status_command=self._shown(self.commands.status),
                    status=word(status),
                    migration=self.migration,
                ),
                expected=say("{wanted}, by the tool's own status.", wanted=word(wanted)),
                next_step=say(
                    "run both by hand in {path} on the database runner, correct migrate_history, then run the same"
                    " playbook again.",
                    path=self.commands.path,
                ),
                cause="tool",
            )

    def _run(self, arguments: tuple[str, ...], login: Login) -> Ended:
        name = f"at-most-one-history-{secrets.token_hex(6)}"
        try:
            ended = run(
                [self._filled(argument, self._named) for argument in arguments],
                self.commands.path,
                self._environment(login, name),
                self.commands.timeout_s,
                cut_short=lambda: self._end_sessions(name),
                guarded=lambda running, end: cli.server_answers(self.login, running, end),
            )
        except OSError as failure:
            raise OperatorError(
                observed(
                    "AMO-3636",
                    "{command} cannot be started in {path}: {reason}.",
                    command=self._shown(arguments),
                    path=self.commands.path,
                    reason=failure.strerror or failure,
                ),
                expected=say("a program and a directory on the database runner that the account of this task may use."),
                next_step=say("correct migrate_history of this inventory, or install the tool there."),
                cause="tool",
            ) from failure
        return replace(ended, output=redact(scrub(ended.output, self.login), self.commands.secrets))

    def _environment(self, login: Login, name: str) -> dict[str, str]:
        own = {
            "PGHOST": login.host,
            "PGPORT": str(login.port),
            "PGDATABASE": login.dbname,
            "PGUSER": login.user,
            "PGPASSWORD": login.password,
            "PGSSLMODE": login.sslmode,
            "PGAPPNAME": name,  # seen in pg_stat_activity, where libpq connects
            "PGCONNECT_TIMEOUT": "10",
            **{f"PG{setting.upper()}": path for setting, path in login.tls_files().items()},
        }
        host = f"[{login.host}]" if ":" in login.host else login.host
        query = urlencode({"sslmode": login.sslmode, **login.tls_files()}, quote_via=quote)
        address = (
            f"{quote(login.user, safe='')}:{quote(login.password, safe='')}@{host}:{login.port}"
            f"/{quote(login.dbname, safe='')}?{query}"
        )
        values = {
            **self._named,
            "url": f"postgresql://{address}",
            "address": address,
            **{"host": login.host, "port": str(login.port), "dbname": login.dbname},
            **{"user": login.user, "password": login.password},
        }
        given = {key: self._filled(value, values) for key, value in self.commands.environment.items()}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return {**inherited, **own, **given}

    def _end_sessions(self, name: str) -> None:
        """A statement that waits in the server would go on without its client."""
        with connect(self.login, autocommit=True) as connection:
            cli.end_sessions(connection, name)

    def _filled(self, text: str, values: Mapping[str, str]) -> str:
        return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)

    def _shown(self, arguments: tuple[str, ...]) -> str:
        return redact(shlex.join(self._filled(argument, self._named) for argument in arguments))
