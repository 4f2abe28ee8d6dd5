"""The version that an application serves: asked, applied and taken back by three commands of its own deployment tool.

The commands are lists of arguments, run without a shell. ``status`` says by its exit code whether one version serves,
and by its last line which other one does. What ``apply`` and ``back`` have done is believed once ``status`` says it.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import OperatorError
from ..findings import Phrase, observed, say
from ..system.commands import CommandSettings, Ended, how, run, said
from ..system.redaction import redact

# What the status command's exit code says. Interpreters, shells and tools end with other codes when they fail.
SERVES, ANOTHER = 0, 3
APPLIED, BACK = "applied", "back"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")


def is_version(text: object) -> bool:
    """Whether it can name a version: one word, which no program takes for an option."""
    return isinstance(text, str) and _VERSION.fullmatch(text) is not None


@dataclass(frozen=True)
class VersionCommands(CommandSettings):
    """The three commands."""

    status: tuple[str, ...]
    apply: tuple[str, ...]
    back: tuple[str, ...]


@dataclass(frozen=True)
class ServedVersion:
    """What an application serves. Where it is not ``settled``, it serves another version as well."""

    version: str
    settled: bool


@dataclass(frozen=True)
class VersionChange:
    """What was done to have a version served. Both are empty where it served already."""

    told: str  # the command, for a person
    before: str  # the version that served


@dataclass(frozen=True)
class Application:
    """An application whose version its own commands change."""

    commands: VersionCommands

    def served(self) -> ServedVersion:
        """Ask which version serves. Raises OperatorError where that is not known.

        It is asked about a version that does not exist, which must not serve, and then about the one that it names. A
        command that says yes to everything, or that does not look at the version, is found by that.
        """
        nobody = f"none-{secrets.token_hex(6)}"
        named = self._other_than(nobody)
        if named is None:
            raise self._unknown(
                observed(
                    "AMO-4414",
                    "Nobody knows which version serves: {command} ended with exit code 0, although that version does"
                    " not exist.",
                    command=self._shown(self.commands.status, nobody),
                ),
                SERVES,
            )
        return ServedVersion(named, settled=self.serves(named))

    def serves(self, version: str) -> bool:
        """Whether this version serves, and no other. Raises OperatorError where that is not known."""
        return self._asked(version).returncode == SERVES

    def ensure(
        self, version: str, state: str, require_held: Callable[[], None], *, check: bool = False
    ) -> VersionChange:
        """Have the version served: ``applied``, or gone ``back`` to. Raises OperatorError.

        ``require_held`` is called right before the command and after it, and raises where another run has taken over.
        """
        before = self._other_than(version)
        if before is None:
            return VersionChange("", "")
        command = self.commands.apply if state == APPLIED else self.commands.back
        shown = self._shown(command, version)
        if check:
            return VersionChange(shown, before)
        require_held()
        ended = self._masked(self._run(command, version))
        if ended.returncode != 0:
            raise OperatorError(
                observed(
                    "AMO-4417",
                    "Version {version} was not put into service: {command} {ended}.{said}",
                    version=version,
                    command=shown,
                    ended=how(ended),
                    said=said(ended),
                ),
                expected=say("exit code 0, once every instance serves that version."),
                next_step=say(
                    "correct what it names, in {path} on the database runner, then run the same playbook again.",
                    path=self.commands.path,
                ),
                cause="application",
                returncode=ended.returncode,
            )
        require_held()
        if not self.serves(version):
            raise OperatorError(
                observed(
                    "AMO-4418",
                    "{command} ended with exit code 0, and {status_command} says that another version than {version}"
                    " serves.",
                    command=shown,
                    status_command=self._shown(self.commands.status, version),
                    version=version,
                ),
                expected=say("exit code 0, once every instance serves that version."),
                next_step=say(
                    "run both by hand in {path} on the database runner, correct app_commands, then run the same"
                    " playbook again.",
                    path=self.commands.path,
                ),
                cause="application",
            )
        return VersionChange(shown, before)

    def _other_than(self, version: str) -> str | None:
        """The version that serves in the place of this one; None where this one does."""
        ended = self._asked(version)
        if ended.returncode == SERVES:
            return None
        lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
        named = lines[-1] if lines else ""
        # A secret in the place of the version would be shown as one.
        if not is_version(named) or named == version or redact(named, self.commands.secrets) != named:
            raise self._unknown(
                observed(
                    "AMO-4416",
                    "Nobody knows which version serves: {command} ended with exit code 3, and its last line names no"
                    " other version.{said}",
                    command=self._shown(self.commands.status, version),
                    said=said(self._masked(ended)),
                ),
                ended.returncode,
            )
        return named

    def _asked(self, version: str) -> Ended:
        """What the status command answers about a version; its output may hold secrets."""
        ended = self._run(self.commands.status, version)
        if ended.returncode not in (SERVES, ANOTHER):
            raise self._unknown(
                observed(
                    "AMO-4415",
                    "Nobody knows which version serves: {command} {ended}.{said}",
                    command=self._shown(self.commands.status, version),
                    ended=how(ended),
                    said=said(self._masked(ended)),
                ),
                ended.returncode,
            )
        return ended

    def _unknown(self, seen: Phrase, returncode: int | None) -> OperatorError:
        return OperatorError(
            seen,
            expected=say(
                "exit code 0 (the version that it is asked about serves, and no other) or 3 (another one does, and the"
                " last line of the output is its name)."
            ),
            next_step=say(
                "run it by hand in {path} on the database runner until it answers; docs/command.md has the contract.",
                path=self.commands.path,
            ),
            cause="application",
            returncode=returncode,
        )

    def _run(self, command: tuple[str, ...], version: str) -> Ended:
        given = {name: _filled(value, version) for name, value in self.commands.environment.items()}
        try:
            return run(
                [_filled(argument, version) for argument in command],
                self.commands.path,
                {**os.environ, **given},
                self.commands.timeout_s,
            )
        except OSError as failure:
            raise OperatorError(
                observed(
                    "AMO-4419",
                    "{command} cannot be started in {path}: {reason}.",
                    command=self._shown(command, version),
                    path=self.commands.path,
                    reason=failure.strerror or failure,
                ),
                expected=say("a program and a directory on the database runner that the account of this task may use."),
                next_step=say("correct app_commands of this inventory, or install the program there."),
                cause="application",
            ) from failure

    def _masked(self, ended: Ended) -> Ended:
        return replace(ended, output=redact(ended.output, self.commands.secrets))

    def _shown(self, command: tuple[str, ...], version: str) -> str:
        return redact(shlex.join(_filled(argument, version) for argument in command), self.commands.secrets)


def _filled(text: str, version: str) -> str:
    return text.replace("{version}", version)
