"""What every module of library/ shares: the login, the plan, and how an OperatorError becomes a failed task."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypedDict, TypeVar

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

if TYPE_CHECKING:
    from ansible.module_utils.at_most_one.errors import OperatorError
    from ansible.module_utils.at_most_one.fence.write_fence import Change
    from ansible.module_utils.at_most_one.findings import Finding
    from ansible.module_utils.at_most_one.migration.tool_history import ToolHistory
    from ansible.module_utils.at_most_one.plan import Plan
    from ansible.module_utils.at_most_one.pm2.client import Pm2
    from ansible.module_utils.at_most_one.postgres.connection import Hold, Login
    from ansible.module_utils.at_most_one.service.version import Application
    from ansible.module_utils.at_most_one.system.commands import CommandSettings
    from ansible.module_utils.at_most_one.system.run_token import Guard
    from ansible.module_utils.at_most_one.systemd.client import Systemd

try:
    import psycopg2
except ImportError:
    PSYCOPG2_ERROR: str | None = traceback.format_exc()
    DATABASE_ERROR: type[Any] = ImportError
else:
    PSYCOPG2_ERROR = None
    DATABASE_ERROR = psycopg2.Error

_Commands = TypeVar("_Commands", bound="CommandSettings")

LOGIN_SPEC: dict[str, Any] = {
    "login": {
        "type": "dict",
        "required": True,
        "options": {
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 5432},
            "dbname": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "sslmode": {
                "type": "str",
                "default": "prefer",
                "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
            },
            "sslrootcert": {"type": "str", "default": ""},
            "sslcert": {"type": "str", "default": ""},
            "sslkey": {"type": "str", "default": "", "no_log": False},
        },
    },
    "lock_timeout_ms": {"type": "int", "default": 3000},
    "statement_timeout_ms": {"type": "int", "default": 60000},
}

PLAN_SPEC: dict[str, Any] = {"plan": {"type": "dict", "required": True}}
# A module that removes what is past its time.
PURGE_SPEC: dict[str, Any] = {
    "keep_days": {"type": "int", "required": True},
    "confirmed": {"type": "bool", "default": False},
}
# A module that writes: see held_run.
WRITING_SPEC: dict[str, Any] = {**LOGIN_SPEC, **PLAN_SPEC, "run_id": {"type": "str"}}
# A module whose call can be the last one of a phase: see record_phase.
PHASE_SPEC: dict[str, Any] = {"phase": {"type": "str"}}


def _commands_spec(*names: str, timeout_s: int) -> dict[str, Any]:
    return {
        **{name: {"type": "list", "elements": "str", "required": True} for name in names},
        "path": {"type": "path", "required": True},
        "environment": {"type": "dict", "default": {}},
        "timeout_s": {"type": "int", "default": timeout_s},
    }


# A module that asks or changes a migration tool's history: see history_of.
HISTORY_SPEC: dict[str, Any] = {
    "history": {"type": "dict", "options": _commands_spec("status", "applied", "not_applied", timeout_s=60)}
}
# A module that asks an application's own commands for its version: see application_of.
COMMANDS_SPEC: dict[str, Any] = {
    "commands": {"type": "dict", "required": True, "options": _commands_spec("status", "apply", "back", timeout_s=300)}
}
# A module that asks PM2: see pm2_of.
PM2_SPEC: dict[str, Any] = {
    "pm2": {"type": "str", "default": "pm2"},
    "pm2_home": {"type": "path"},
    "environment_path": {"type": "str"},
}
# How an application says which build answers, and from which process: see http.served_build.
PROBE_SPEC: dict[str, Any] = {
    "build": {"type": "str"},
    "build_header": {"type": "str"},
    "build_json_key": {"type": "str", "no_log": False},
    "pid_header": {"type": "str"},
    "expect": {"type": "list", "elements": "int", "default": [200]},
    "timeout_s": {"type": "float", "default": 5.0},
}
# A module that removes the releases that nobody needs any more: see release.retention.
RELEASES_SPEC: dict[str, Any] = {
    "releases": {
        "type": "dict",
        "options": {
            "path": {"type": "path", "required": True},
            "keep": {"type": "int", "required": True},
            "needed": {"type": "list", "elements": "path", "default": []},
        },
    }
}
# A module that asks systemd: see systemd_of.
SYSTEMD_SPEC: dict[str, Any] = {
    "units": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
        },
    },
    "systemctl": {"type": "list", "elements": "str", "default": ["systemctl"]},
    "journalctl": {"type": "list", "elements": "str", "default": ["journalctl"]},
}
# A module that writes on a host: see guard_of.
RUN_SPEC: dict[str, Any] = {
    "run": {
        "type": "dict",
        "options": {
            "id": {"type": "str", "required": True},
            "number": {"type": "int", "required": True},
            "path": {"type": "path", "required": True},
        },
    }
}


class Call(Protocol):
    """What a module needs of Ansible that also runs in ansible-playbook itself (action_plugins/in_process.py)."""

    params: dict[str, Any]
    check_mode: bool

    def warn(self, warning: str) -> None: ...


class Timeouts(TypedDict):
    """The limits of one connection, in milliseconds."""

    lock_timeout_ms: int
    statement_timeout_ms: int


class _Module(AnsibleModule):
    """A module that hands over the phrases of its warnings, beside their English, for the reader's language."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.phrases: list[dict[str, Any]] = []
        super().__init__(*arguments, **options)

    def warn(self, warning: str, **options: Any) -> None:
        self.phrases += phrases_of(warning)
        super().warn(str(warning), **options)


def phrases_of(warning: str) -> list[dict[str, Any]]:
    """A warning as it is handed over among ``warning_phrases``; nothing where it is no phrase."""
    from ansible.module_utils.at_most_one.findings import Phrase
    from ansible.module_utils.at_most_one.system.redaction import redact_data

    return [redact_data(warning.as_data())] if isinstance(warning, Phrase) else []


def _told(module: AnsibleModule) -> dict[str, Any]:
    """What the result has beside Ansible's own ``warnings``."""
    phrases = getattr(module, "phrases", [])
    return {"warning_phrases": phrases} if phrases else {}


def run(
    argument_spec: dict[str, Any],
    act: Callable[[Any], dict[str, Any]],
    *,
    needs_psycopg2: bool = True,
    **module_arguments: Any,
) -> None:
    """Run ``act`` as an Ansible module; its mapping is the result. Every error says seen, expected, next."""
    from ansible.module_utils.at_most_one.system import live_step

    live_step.take()
    module = _Module(argument_spec=argument_spec, supports_check_mode=True, **module_arguments)
    if needs_psycopg2 and PSYCOPG2_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    try:
        answer = act(module)
        module.exit_json(**answer, **_told(module))
    except Exception as error:
        result = failed_result(error)
        if result is None:
            raise
        module.fail_json(**result, **_told(module))


def fail(module: AnsibleModule, error: Exception, **done: Any) -> NoReturn:
    """Fail as :func:`run` does for an error of ``act``, with what was ``done`` until then."""
    result = failed_result(error)
    if result is None:
        raise error
    module.fail_json(**result, **done, **_told(module))


def failed_result(error: Exception) -> dict[str, Any] | None:
    """The failed task that an error of ``act`` becomes; ``None`` for one that nobody foresaw."""
    # Imported late: AnsiballZ ships the core beside this file, psycopg2 may be missing on the host until here.
    from ansible.module_utils.at_most_one.errors import OperatorError
    from ansible.module_utils.at_most_one.findings import observed, say

    if isinstance(error, OperatorError):
        return refusal(error)
    if isinstance(error, OSError):
        return refusal(
            OperatorError(
                observed(
                    "AMO-1009",
                    "{path}: {reason}.",
                    path=error.filename or say("The system"),
                    reason=error.strerror or error,
                ),
                expected=say("files and directories that the account of this task may read and write."),
                next_step=say(
                    "give the account that right, or name another account or path in the inventory; then run again."
                ),
            )
        )
    if isinstance(error, DATABASE_ERROR):
        from ansible.module_utils.at_most_one.postgres import server_errors

        # The core names every refusal it knows of. This is one it did not foresee.
        said = server_errors.explain(
            error,
            say("the rights and the objects that the plan needs."),
            say("read the server's log of this moment; grant what is missing, then the same playbook again."),
        )
        return refusal(
            OperatorError(
                observed(
                    "AMO-1010",
                    "PostgreSQL refused a statement: {message} (SQLSTATE {code}).",
                    message=said.message or say("no message"),
                    code=getattr(error, "pgcode", None) or "none",
                ),
                expected=said.expected,
                next_step=said.next_step,
            )
        )
    return None


def refusal(stop: OperatorError) -> dict[str, Any]:
    """A failed task with what an OperatorError says: every log, page, message and record of it comes from here."""
    from ansible.module_utils.at_most_one.system.redaction import redact, redact_data

    said: dict[str, Any] = {
        "seen": redact(stop.seen),
        "expected": redact(stop.expected),
        "next_step": redact(stop.next_step),
    }
    said |= {"details": redact_data(stop.details), "findings": [_handed_over(one) for one in stop.findings]}
    return {"failed": True, "msg": redact(str(stop)), **said}


def _handed_over(finding: Finding) -> dict[str, Any]:
    """A finding for the control node, which translates it. A text that was masked is English alone.

    Out of its sentence, a value might not look like the secret that it is.
    """
    from ansible.module_utils.at_most_one.findings import Finding, Phrase
    from ansible.module_utils.at_most_one.system.redaction import redact_data

    data: dict[str, Any] = redact_data(finding.as_data())
    kept = Finding.of_data(data).phrases()
    data["phrases"] = {name: one for name, one in data["phrases"].items() if isinstance(kept[name], Phrase)}
    return data


@contextlib.contextmanager
def held_run(module: AnsibleModule) -> Iterator[Hold]:
    """What the core wants to begin its writing transactions with; the run's lease is renewed until the block ends.

    In check mode nothing is written, and the run is not in the journal.
    """
    from ansible.module_utils.at_most_one.runs import journal

    run_id = None if module.check_mode else module.params["run_id"]
    with journal.kept_alive(login_of(module), run_id):
        yield journal.holding(run_id)


def guard_of(module: AnsibleModule) -> Guard:
    """What the core begins to write on this host with: a run that was overtaken there is refused."""
    from ansible.module_utils.at_most_one.system import run_token

    given = module.params["run"]
    if given is None:
        return run_token.unguarded
    run = run_token.Run(given["id"], given["number"], Path(given["path"]))
    return run_token.guard(run, check=module.check_mode)


def record_phase(module: AnsibleModule, status: str, details: Mapping[str, Any]) -> None:
    """Record the phase that ends with this call in the journal of ``run_id``, where ``phase`` names one.

    ``status``: ok or unchanged. In check mode nothing is written, and the run is not in the journal.
    """
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.runs import journal

    if module.params["phase"] is None or module.check_mode:
        return
    with connect(login_of(module), **timeouts_of(module)) as connection:
        journal.record(connection, module.params["run_id"], module.params["phase"], status, details)


def lower_fence(module: AnsibleModule, plan: Plan, *, lock_timeout_ms: int, lock_attempts: int) -> dict[str, Any]:
    """Lower the plan's write fence; the result as M(write_fence) returns it. A fence that stays is a warning."""
    from ansible.module_utils.at_most_one.fence import write_fence
    from ansible.module_utils.at_most_one.postgres.connection import connect

    require_attempts(lock_attempts)
    limits: Timeouts = {**timeouts_of(module), "lock_timeout_ms": lock_timeout_ms}
    with held_run(module) as hold, connect(login_of(module), **limits) as connection:
        wait_ms = lock_timeout_ms * lock_attempts
        change = write_fence.lower_fence(connection, plan, wait_ms=wait_ms, check=module.check_mode, hold=hold)
    return fence_result(module, change)


def require_attempts(lock_attempts: int) -> None:
    """Raise an OperatorError unless the lock is to be asked for at least once."""
    from ansible.module_utils.at_most_one.errors import OperatorError
    from ansible.module_utils.at_most_one.findings import observed, say

    if lock_attempts < 1:
        raise OperatorError(
            observed("AMO-1011", "lock_attempts is {lock_attempts}.", lock_attempts=lock_attempts),
            expected=say("1 or more."),
            next_step=say("correct lock_attempts."),
        )


def fence_result(module: AnsibleModule, change: Change) -> dict[str, Any]:
    """A change of the write fence as a module's result; its warnings are shown apart."""
    for warning in change.warnings:
        module.warn(warning)
    return {
        "changed": bool(change.statements),
        **{name: value for name, value in asdict(change).items() if name != "warnings"},
        "diff": fence_diff(change),
    }


def fence_diff(change: Change) -> dict[str, str]:
    """A change of the write fence as --diff shows it."""
    return {"before": f"write fence: {change.before}\n", "after": f"write fence: {change.state}\n"}


def pm2_of(module: AnsibleModule) -> Pm2:
    """The PM2 that the module's options name: its executable, and the home of its daemon."""
    from ansible.module_utils.at_most_one.pm2.client import Pm2

    given = module.params
    home = given["pm2_home"] or os.environ.get("PM2_HOME") or os.path.expanduser("~/.pm2")
    return Pm2(given["pm2"], home, given["environment_path"])


def systemd_of(module: AnsibleModule) -> Systemd:
    """The systemd that the module's options name: how it is asked, and which units are the application's."""
    from ansible.module_utils.at_most_one.systemd.client import Systemd, Unit

    given = module.params
    units = tuple(Unit(one["name"], one["url"].rstrip("/")) for one in given["units"])
    return Systemd(units, tuple(given["systemctl"]), tuple(given["journalctl"]))


def history_of(module: AnsibleModule, plan: Plan) -> ToolHistory | None:
    """The history that the module's ``history`` option describes, of the plan's migration; None without one."""
    from ansible.module_utils.at_most_one.migration.tool_history import Commands, ToolHistory

    given = module.params["history"]
    if given is None:
        return None
    return ToolHistory(login_of(module), plan.migration, _commands_of(module, Commands, given), plan.schema)


def application_of(module: AnsibleModule) -> Application:
    """The application whose version the commands of the module's ``commands`` option change."""
    from ansible.module_utils.at_most_one.service.version import Application, VersionCommands

    return Application(_commands_of(module, VersionCommands, module.params["commands"]))


def _commands_of(module: AnsibleModule, kind: type[_Commands], given: dict[str, Any]) -> _Commands:
    """The commands of an option; the secrets in their environment are masked in all that the module returns."""
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    environment = {name: str(value) for name, value in given["environment"].items()}
    commands = kind(**{**given, **lists, "environment": environment})
    module.no_log_values.update(commands.secrets)
    return commands


def login_of(module: AnsibleModule) -> Login:
    """The Login that the module's ``login`` option describes."""
    from ansible.module_utils.at_most_one.postgres.connection import Login

    return Login(**module.params["login"])


def timeouts_of(module: AnsibleModule) -> Timeouts:
    """Return the two timeouts, in milliseconds, as ``postgres.connection.connect`` takes them."""
    given = module.params
    return {"lock_timeout_ms": given["lock_timeout_ms"], "statement_timeout_ms": given["statement_timeout_ms"]}
