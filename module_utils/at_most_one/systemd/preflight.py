"""What stands against a restart one by one: each has a message of its own, and nothing is touched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import OperatorError
from ..findings import observed, say
from ..http.proof import Demand
from ..system.processes import account, working_directory
from .client import State, Systemd, Unit, states


@dataclass(frozen=True)
class Aim:
    """What to restart, and how sure to be. ``path`` is the application's: the link, or the directory in place.

    The probe of ``demand`` has no address yet: each unit answers at its own, below which ``health_path`` is.
    """

    demand: Demand
    path: str
    health_path: str = "/"
    min_units: int = 2
    log_lines: int = 20

    def of(self, unit: Unit) -> Demand:
        """What is demanded of one unit."""
        probe = self.demand.probe
        return replace(self.demand, probe=replace(probe, url=f"{unit.url}{self.health_path}") if probe else None)


def preflight(systemd: Systemd, aim: Aim, *, linked: bool) -> tuple[State, ...]:
    """The units, when a restart one by one can work on them; OperatorError names what stands against it.

    With ``linked`` the application's path must already lead to the release, as it does when the restart is for real.
    """
    name = aim.demand.name
    if len(systemd.units) < aim.min_units:
        raise OperatorError(
            observed("AMO-4503", "app_units of {name} is a list of {count}.", name=name, count=len(systemd.units)),
            expected=say("{min_units} or more: the others serve while one is restarted.", min_units=aim.min_units),
            next_step=say(
                "start one more of the template unit, add it to app_units and to the proxy; or say that users may meet "
                "a gap: app_min_instances: 1."
            ),
        )
    found = states(systemd)
    for one in found:
        _require_unit(one, aim)
    release = aim.demand.release_path
    if linked and release and os.path.realpath(aim.path) != release:
        raise OperatorError(
            observed("AMO-4506", "{path} leads to {realpath}.", path=aim.path, realpath=os.path.realpath(aim.path)),
            expected=say("{release}.", release=release),
            next_step=say("switch the link first."),
        )
    return found


def _require_unit(one: State, aim: Aim) -> None:
    if one.loaded != "loaded":
        raise OperatorError(
            observed("AMO-4504", "systemd cannot run {unit}: it is {loaded}.", unit=one.name, loaded=one.loaded),
            expected=say("a unit file that systemd has read."),
            next_step=say(
                "correct app_units, or install the unit file (examples/systemd has one), then systemctl daemon-reload."
            ),
        )
    if not _through(aim.path, one.directory):
        raise OperatorError(
            observed(
                "AMO-4505",
                "systemd would start {unit} in {directory}, whatever {path} leads to.",
                unit=one.name,
                directory=one.directory or say("no directory of its own"),
                path=aim.path,
            ),
            expected=say("WorkingDirectory={path} in its unit file.", path=aim.path),
            next_step=say("correct it there, then systemctl daemon-reload; the deployment restarts the unit itself."),
        )
    if one.online and working_directory(one.pid) is None:
        raise OperatorError(
            observed(
                "AMO-4507",
                "{user} may not see in which directory pid {pid} of {unit} works.",
                user=account(os.geteuid()),
                pid=one.pid,
                unit=one.name,
            ),
            expected=say("the account of the units, or root: which release a process runs is read from /proc."),
            next_step=say("set become_user for these tasks to the User= of the unit file."),
        )


def require_brought_back(found: Sequence[State]) -> None:
    """Raises OperatorError unless a reboot brings every unit back."""
    lost = [one for one in found if not one.brought_back]
    if lost:
        units = " ".join(one.name for one in lost)
        raise OperatorError(
            observed(
                "AMO-4508",
                "A reboot would not bring back {units}: systemctl is-enabled says {enabled}.",
                units=units,
                enabled=lost[0].enabled or say("nothing"),
            ),
            expected=say("enabled."),
            next_step=say(
                "systemctl enable {units}, then the same command again; one that is static needs an [Install] section "
                "for it, or an enabled unit that wants it.",
                units=units,
            ),
            units=[one.name for one in lost],
        )


def _through(path: str, directory: str) -> bool:
    """Whether who starts in ``directory`` follows the link at ``path``: it is that very link, not its target."""
    return bool(directory) and _place(directory) == _place(path)


def _place(path: str) -> str:
    """The path with its last part kept as it is, and the links before that followed."""
    parent, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(parent), name)
