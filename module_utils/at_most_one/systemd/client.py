"""systemd as it is: the units of an application, and their words in its log. What it says is checked against /proc.

``systemctl`` and ``journalctl`` are run as the inventory names them: with ``--user``, or behind sudo.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import OperatorError
from ..findings import Phrase, observed, say
from ..system import commands
from ..system.app_logs import last_lines, without_colour
from ..system.commands import Ended
from ..system.processes import start_ticks, working_directory
from ..system.redaction import redact
from ..system.strict_zip import strict_zip

_ASKING_S = 30.0  # for a question, which systemd answers within milliseconds
_PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "MainPID"),
    *("UnitFileState", "WorkingDirectory", "NeedDaemonReload"),
    *("WantedBy", "RequiredBy"),
)
# What `systemctl is-enabled` says yes to (systemctl(1)), but for enabled-runtime, which a reboot ends. The last two are
# not enabled by themselves: another unit has to want them.
_BROUGHT_BACK, _PULLED_IN = ("enabled", "alias", "generated"), ("static", "indirect")


@dataclass(frozen=True)
class Unit:
    """A unit of the application, and the address at which its process answers, and no other."""

    name: str
    url: str


@dataclass(frozen=True)
class Systemd:
    """The units of one application, and the commands by which systemd is asked of them."""

    units: tuple[Unit, ...]
    systemctl: tuple[str, ...] = ("systemctl",)
    journalctl: tuple[str, ...] = ("journalctl",)

    def environment(self) -> dict[str, str]:
        """The caller's, where ``systemctl --user`` finds its manager also without a session of the account."""
        own = f"/run/user/{os.geteuid()}"
        runtime = {"XDG_RUNTIME_DIR": own} if os.path.isdir(own) else {}
        return {**runtime, **os.environ, "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class State:
    """What systemd says of a unit, and when its process has started by /proc (clock ticks since boot)."""

    unit: Unit
    loaded: str  # loaded, not-found, masked, bad-setting, error
    active: str  # active, inactive, failed, activating, ...
    sub: str  # running, auto-restart, exited, ...
    pid: int  # 0 where it has no process
    ticks: int | None
    enabled: str  # enabled, disabled, static, ...
    directory: str  # where its processes are started, links kept; empty where the unit names none
    outdated: bool  # its file was changed since systemd has read it
    wanted: bool  # another unit starts it

    @property
    def name(self) -> str:
        return self.unit.name

    @property
    def online(self) -> bool:
        return self.active == "active" and self.ticks is not None

    @property
    def process(self) -> tuple[int, int | None]:
        """What names one process for ever."""
        return self.pid, self.ticks

    @property
    def brought_back(self) -> bool:
        """Whether a reboot brings it back."""
        return self.enabled in _BROUGHT_BACK or (self.enabled in _PULLED_IN and self.wanted)


def states(systemd: Systemd) -> tuple[State, ...]:
    """What systemd says of each unit, in the order of the inventory. Raises OperatorError where it does not answer."""
    return _states(systemd, systemd.units)


def state(systemd: Systemd, unit: Unit) -> State:
    """What systemd says of one unit. Raises OperatorError where it does not answer."""
    (found,) = _states(systemd, [unit])
    return found


def _states(systemd: Systemd, units: Sequence[Unit]) -> tuple[State, ...]:
    question = ("show", f"--property={','.join(_PROPERTIES)}", "--", *(unit.name for unit in units))
    ended = _run(systemd, [*systemd.systemctl, *question], _ASKING_S)
    # One block of NAME=VALUE for each unit, in this order, with an empty line between two of them.
    blocks = [_values(block) for block in ended.output.strip().split("\n\n")]
    if ended.returncode != 0 or len(blocks) != len(units) or not all("ActiveState" in block for block in blocks):
        raise OperatorError(
            observed(
                "AMO-4501",
                "systemd does not say how the units are: {command} {ended}.{said}",
                command=shlex.join([*systemd.systemctl, *question]),
                ended=commands.how(ended),
                said=_said(ended),
            ),
            expected=say("its answer for each of {units}.", units=", ".join(unit.name for unit in units)),
            next_step=say(
                "run it by hand as the account of this task; then correct app_units or app_systemctl of the inventory "
                "(for units of that account: [systemctl, --user])."
            ),
        )
    return tuple(_state(unit, block) for unit, block in strict_zip(units, blocks))


def _values(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _state(unit: Unit, values: dict[str, str]) -> State:
    pid = int(values.get("MainPID") or 0)
    return State(
        unit,
        loaded=values.get("LoadState", ""),
        active=values["ActiveState"],
        sub=values.get("SubState", ""),
        pid=pid,
        ticks=start_ticks(pid) if pid else None,
        enabled=values.get("UnitFileState", ""),
        directory=values.get("WorkingDirectory", "").lstrip("!-"),  # marks that it may be missing
        outdated=values.get("NeedDaemonReload") == "yes",
        wanted=bool(values.get("WantedBy") or values.get("RequiredBy")),
    )


def restart(systemd: Systemd, before: State, timeout_s: float) -> Ended:
    """Restart the unit, in whatever state it is, and wait until systemd is done. What came of it only a look proves.

    One that has crashed again and again is not started any more until systemd forgets how often (StartLimitBurst=).
    """
    if not before.online:
        _run(systemd, [*systemd.systemctl, "reset-failed", "--", before.name], _ASKING_S)
    return _run(systemd, [*systemd.systemctl, "restart", "--", before.name], timeout_s)


def stop(systemd: Systemd, unit: Unit, timeout_s: float) -> None:
    """Stop the unit: nothing answers at its address any more, and a proxy goes on to the next one at once."""
    _run(systemd, [*systemd.systemctl, "stop", "--", unit.name], timeout_s)


def words(systemd: Systemd, unit: Unit, since: float, lines: int) -> list[str]:
    """What the unit wrote since a Unix time, and systemd of it, without secrets; none where that cannot be read."""
    question = (f"--unit={unit.name}", f"--since=@{int(since)}", f"--lines={lines}", "--output=cat", "--quiet")
    try:
        ended = commands.run([*systemd.journalctl, *question], "/", systemd.environment(), _ASKING_S)
    except OSError:
        return []
    return last_lines(without_colour(ended.output).splitlines(), lines) if ended.returncode == 0 else []


def refused(ended: Ended) -> Phrase:
    """How a command ended that systemd did not carry out, and what it said."""
    return say("systemctl {ended}.{said}", ended=commands.how(ended), said=_said(ended))


def described(found: State) -> dict[str, Any]:
    """The unit as a module returns it: where it really works beside what systemd says."""
    return {
        "pm_id": found.name,  # a name where PM2 has a number
        "status": "online" if found.online else found.active,
        "pid": found.pid,
        "cwd": working_directory(found.pid) if found.pid else None,
        "enabled": found.enabled,
    }


def _said(ended: Ended) -> Phrase:
    return commands.said(replace(ended, output=redact(ended.output)))


def _run(systemd: Systemd, arguments: list[str], timeout_s: float) -> Ended:
    try:
        return commands.run(arguments, "/", systemd.environment(), timeout_s)
    except OSError as failure:
        raise OperatorError(
            observed(
                "AMO-4502",
                "{executable} cannot be run: {reason}.",
                executable=arguments[0],
                reason=failure.strerror or failure,
            ),
            expected=say("systemctl of the systemd that keeps the units running."),
            next_step=say("correct app_systemctl in the inventory of this host."),
        ) from failure
