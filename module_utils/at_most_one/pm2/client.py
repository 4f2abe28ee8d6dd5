"""PM2 as it is: its daemon, its list of instances, its ecosystem file. What PM2 says is checked against /proc.

``pm2 jlist`` prints the whole environment of every application, secrets included: only the fields of :class:`Instance`
ever leave this module, and its output is never part of a message.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import OperatorError
from ..findings import observed, say
from ..system.app_logs import log_sizes, without_colour
from ..system.log_errors import moments
from ..system.processes import account, command_line, working_directory

# What belongs to this login, not to the application that a first `pm2 start` hands its whole environment to.
_NOT_FOR_THE_APP = re.compile(r"^(ANSIBLE_|SSH_|SUDO_|_$|OLDPWD$|PWD$|SHLVL$|PM2_PROGRAMMATIC$)")


@dataclass(frozen=True)
class Pm2:
    """Which PM2 to talk to: the executable, the home of its daemon, and what goes before PATH so that node is found."""

    executable: str
    home: str
    path: str | None = None

    def environment(self) -> dict[str, str]:
        """The caller's environment without what belongs to its session."""
        kept = {name: value for name, value in os.environ.items() if not _NOT_FOR_THE_APP.match(name)}
        search = os.pathsep.join(filter(None, [self.path, os.environ.get("PATH", os.defpath)]))
        return {**kept, "PM2_HOME": self.home, "PATH": search}


@dataclass(frozen=True)
class Daemon:
    """The PM2 daemon behind a PM2_HOME; ``version`` is that of the running code, not of the executable on disk."""

    pid: int
    user: str
    version: str | None


@dataclass(frozen=True)
class Instance:
    """One instance; everything that is ever taken from ``pm2 jlist``."""

    pm_id: int
    pid: int  # 0 when it does not run
    status: str
    restarts: int
    exec_mode: str  # cluster_mode | fork_mode
    pm_cwd: str  # where PM2 will start it, symlinks kept
    script: str
    out_log: str
    err_log: str
    started_ms: int  # Unix time of the last start
    node_version: str | None
    pm2_version: str | None
    ready_wait_s: float = 0.0  # how long PM2 waits for the message "ready" at each start (wait_ready)

    @property
    def online(self) -> bool:
        return self.status == "online" and self.pid > 0


@dataclass(frozen=True)
class Listing:
    """What the daemon lists. The old worker of a reload under way is not in it (PM2's lib/God/Methods.js)."""

    daemon: Daemon | None
    instances: tuple[Instance, ...] = ()
    others: tuple[str, ...] = field(default=())  # names of the other applications of this PM2_HOME
    pids: frozenset[int] = field(default=frozenset(), repr=False)  # of every process in the list, whatever its name


def daemon_of(pm2: Pm2) -> Daemon | None:
    """The daemon behind ``pm2.home``, or None. Asking PM2 itself would start one. Raises OperatorError: not ours."""
    path = os.path.join(pm2.home, "rpc.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except PermissionError as failure:
            raise _foreign(pm2, _owner(path)) from failure
        except OSError as failure:
            raise OperatorError(
                observed("AMO-4201", "No connection to PM2's socket {path}: {reason}.", path=path, reason=failure),
                expected=say("a PM2 daemon that answers on it."),
                next_step=say("check pm2_home (the path of a socket may have about 100 characters at most)."),
            ) from failure
        pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.geteuid():
        raise _foreign(pm2, account(uid))
    title = re.search(r"PM2 v(\d\S*):", command_line(pid))  # PM2 sets its daemon's title (lib/Daemon.js)
    return Daemon(pid, account(uid), title.group(1) if title else None)


def _foreign(pm2: Pm2, owner: str) -> OperatorError:
    return OperatorError(
        observed(
            "AMO-4202",
            "The PM2 daemon in {home} belongs to {owner}; this task runs as {user}.",
            home=pm2.home,
            owner=owner,
            user=account(os.geteuid()),
        ),
        expected=say(
            "the same user: for another one PM2 shows an empty list and leaves files that its owner cannot write."
        ),
        next_step=say("set become_user: {owner} for these tasks, or correct pm2_home.", owner=owner),
        owner=owner,
    )


def _owner(path: str) -> str:
    while True:
        try:
            return account(os.stat(path).st_uid)
        except OSError:
            path = os.path.dirname(path)  # what cannot be looked into belongs to whoever owns the directory


def executable_version(pm2: Pm2) -> str:
    """The version of the PM2 on disk, from its package.json. Raises OperatorError when there is no such PM2."""
    found = shutil.which(pm2.executable, path=pm2.environment()["PATH"])
    if not found:
        raise OperatorError(
            observed("AMO-4203", "There is no executable {executable}.", executable=pm2.executable),
            expected=say("PM2 where pm2_bin says, or on PATH with app_environment_path before it."),
            next_step=say("correct pm2_bin and app_environment_path in the inventory of this host."),
        )
    package = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(found))), "package.json")
    try:
        with open(package, encoding="utf-8") as file:
            described = json.load(file)
        if described.get("name") == "pm2":
            return str(described["version"])
    except (OSError, ValueError, KeyError):
        pass  # a wrapper around PM2: ask it
    output = run(pm2, "--version").stdout
    version = re.findall(r"^\d+\.\d+\.\d+\S*$", output, re.MULTILINE)
    return str(version[-1]) if version else "unknown"


def version_tuple(version: str | None) -> tuple[int, ...]:
    """For comparison: ``7.0.4-beta`` is (7, 0, 4); what is no version is lower than every version."""
    matched = re.match(r"(\d+)\.(\d+)\.(\d+)", version or "")
    return tuple(map(int, matched.groups())) if matched else ()


def run(pm2: Pm2, *arguments: str, cwd: str = "/", timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the pm2 command, colours removed. Its return code proves nothing. Raises OperatorError when it hangs."""
    environment = pm2.environment()
    executable = shutil.which(pm2.executable, path=environment["PATH"]) or pm2.executable
    try:
        done = subprocess.run(  # noqa: S603 (an argument list, no shell; the executable is the inventory's)
            [executable, *arguments],
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise OperatorError(
            observed(
                "AMO-4204",
                "pm2 {arguments} did not end within {timeout_s} s.",
                arguments=arguments[0],
                timeout_s=f"{timeout_s:g}",
            ),
            expected=say("an answer of the PM2 daemon."),
            next_step=say(
                "look at {home}/pm2.log; `pm2 ping` as the same user tells whether the daemon answers.", home=pm2.home
            ),
        ) from expired
    except OSError as failure:
        raise OperatorError(
            observed(
                "AMO-4205", "{executable} cannot be run: {reason}.", executable=executable, reason=failure.strerror
            ),
            expected=say("an executable pm2."),
            next_step=say("correct pm2_bin and app_environment_path in the inventory of this host."),
        ) from failure
    done.stdout, done.stderr = map(without_colour, (done.stdout, done.stderr))
    return done


def parse_jlist(output: str) -> list[dict[str, Any]] | None:
    """The list in what ``pm2 jlist`` printed: its last line that is one. A banner may come before it."""
    for line in reversed(output.splitlines()):
        if line.startswith("["):
            try:
                listed = json.loads(line)
            except ValueError:
                continue  # "[PM2] Spawning PM2 daemon"
            if isinstance(listed, list) and all(isinstance(entry, dict) for entry in listed):
                return listed
    return None


def instance_of(entry: Mapping[str, Any]) -> Instance:
    """The whitelisted fields of one entry of ``pm2 jlist``."""
    environment = entry.get("pm2_env") or {}

    def text(name: str) -> str:
        return str(environment.get(name) or "")

    return Instance(
        pm_id=int(entry["pm_id"]),
        pid=int(entry.get("pid") or 0),
        status=text("status"),
        restarts=int(environment.get("restart_time") or 0),
        exec_mode=text("exec_mode"),
        pm_cwd=text("pm_cwd"),
        script=text("pm_exec_path"),
        out_log=text("pm_out_log_path"),
        err_log=text("pm_err_log_path"),
        started_ms=int(environment.get("pm_uptime") or 0),
        node_version=environment.get("node_version"),
        pm2_version=environment.get("_pm2_version"),
        ready_wait_s=_ready_wait_s(environment),
    )


def _ready_wait_s(environment: Mapping[str, Any]) -> float:
    """``listen_timeout`` where ``wait_ready`` is set; 3 s by default (GRACEFUL_LISTEN_TIMEOUT in constants.js)."""
    if environment.get("wait_ready") is not True:
        return 0.0
    return float(environment.get("listen_timeout") or 3000) / 1000


def listing(pm2: Pm2, name: str) -> Listing:
    """The instances of the application ``name``, ordered by pm_id; nothing is started to find that out."""
    daemon = daemon_of(pm2)
    if daemon is None:
        return Listing(None)
    entries = parse_jlist(run(pm2, "jlist").stdout)
    if entries is None:
        raise OperatorError(
            observed("AMO-4206", "pm2 jlist printed no list."),
            expected=say("a JSON array on one line."),
            next_step=say(
                "run `PM2_HOME={home} pm2 jlist` as the same user and read what it says instead.", home=pm2.home
            ),
        )
    ours = [entry for entry in entries if entry.get("name") == name]
    instances = sorted(
        (instance_of(entry) for entry in ours if isinstance(entry.get("pm_id"), int)), key=lambda one: one.pm_id
    )
    if daemon.version is None and instances:
        daemon = Daemon(daemon.pid, daemon.user, instances[0].pm2_version)
    return Listing(
        daemon,
        tuple(instances),
        tuple(sorted({str(entry.get("name")) for entry in entries} - {name})),
        frozenset(int(entry.get("pid") or 0) for entry in entries),
    )


def described(instance: Instance) -> dict[str, Any]:
    """The instance as a module returns it: where it really works, and how long its logs are now."""
    fields = asdict(instance)
    logs = (instance.out_log, instance.err_log)
    return {
        **{key: fields[key] for key in fields if key not in ("started_ms", "pm2_version")},
        "cwd": working_directory(instance.pid) if instance.pid else None,
        "log_sizes": log_sizes(logs),
    }


def overview(pm2: Pm2, name: str) -> dict[str, Any]:
    """The application as a module returns it: its instances and logs, the daemon, and the versions of both."""
    found = listing(pm2, name)
    logs = [path for one in found.instances for path in (one.out_log, one.err_log)]
    return {
        "version": found.daemon.version if found.daemon else None,
        "executable_version": executable_version(pm2),
        "daemon": asdict(found.daemon) if found.daemon else None,
        "instances": [described(one) for one in found.instances],
        "ready_wait_s": max((one.ready_wait_s for one in found.instances), default=0.0),
        "logs": {path: asdict(moment) for path, moment in moments(logs).items()},
    }
