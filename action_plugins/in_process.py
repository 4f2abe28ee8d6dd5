# ruff: noqa: E402 (module_utils/ of the project has to join Ansible's before it is imported)
"""The base of the actions of this directory: a module of library/ in the process of ansible-playbook itself.

A module on the control node costs the start of a Python each time. Delegated to localhost it runs here instead, with
the same arguments, checks and result; anywhere else, with another user or in the background it is the module as ever.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import ansible.module_utils
from ansible import constants
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.json import Direction, get_module_decoder, get_module_encoder
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import UnsupportedError
from ansible.plugins.action.normal import ActionModule as Normal
from ansible.utils.display import Display

ROOT = Path(__file__).parents[1]
# A collection has them in a directory of another name.
MODULES = next(path for path in (ROOT / "library", ROOT / "modules") if path.is_dir())
# On a host Ansible ships module_utils/ as ansible.module_utils, and library/ imports it as that.
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))
from ansible.module_utils import at_most_one_entry
from ansible.module_utils.at_most_one.errors import OperatorError
from ansible.module_utils.at_most_one.findings import observed, say


class Call:
    """What ``act`` gets in the place of an AnsibleModule."""

    def __init__(self, params: dict[str, Any], check_mode: bool) -> None:
        self.params, self.check_mode = params, check_mode
        self.warnings: list[str] = []
        self.phrases: list[dict[str, Any]] = []

    def warn(self, warning: str) -> None:
        self.phrases += at_most_one_entry.phrases_of(warning)
        self.warnings.append(str(warning))


def load(name: str) -> ModuleType:
    """The module ``name`` of library/, with its OPTIONS, its act and, where some are required together, REQUIRED_IF.

    Ansible loads an action before it starts the process of a task, so that this and the core are loaded once for all.
    """
    spec = importlib.util.spec_from_file_location(f"at_most_one_library_{name}", MODULES / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"library/{name}.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ActionModule(Normal):
    """One action for one module: `of`, or a subclass, names it."""

    module: ClassVar[ModuleType]
    load = staticmethod(load)

    @classmethod
    def of(cls, name: str) -> type[Any]:
        """The action for a module of library/ that needs no more than its name."""
        return type("ActionModule", (cls,), {"module": load(name)})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if not self._is_here(task_vars or {}):
            there: dict[str, Any] = super().run(tmp, task_vars)
            return there
        # As a module on localhost: relative paths are those of the playbook.
        with contextlib.chdir(self._loader.get_basedir()):
            return self._answer()

    def _is_here(self, task_vars: dict[str, Any]) -> bool:
        """Whether the module would run as this very user on this machine, and nothing of its surroundings differs.

        A host of the inventory has a Python of its own, although it may be this machine.
        """
        host = self._task.delegate_to or task_vars.get("inventory_hostname")
        elsewhere = self._connection.become or self._task.async_val or any(self._task.environment or ())
        return host in constants.LOCALHOST and self._connection.transport == "local" and not elsewhere

    def _answer(self) -> dict[str, Any]:
        """The result, failed or not. Nothing of it shows what an option with no_log was given."""
        arguments = _as_sent(self._task.args, Direction.CONTROLLER_TO_MODULE)
        validator = ArgumentSpecValidator(self.module.OPTIONS, required_if=getattr(self.module, "REQUIRED_IF", None))
        checked = validator.validate(arguments)
        call = Call(checked.validated_parameters, self._task.check_mode)
        if checked.error_messages:
            unsupported = isinstance(checked.errors[0], UnsupportedError)
            prefix = f"Unsupported parameters for ({self._task.action}) module: " if unsupported else ""
            result: dict[str, Any] = {"failed": True, "msg": f"{prefix}{checked.errors.msg}"}
        else:
            result = self._act(call)
        if getattr(constants, "INJECT_INVOCATION", True):  # before ansible-core 2.21 it was no setting
            result["invocation"] = {"module_args": call.params}
        if call.warnings:
            result["warnings"] = call.warnings
        if call.phrases:
            result["warning_phrases"] = call.phrases
        sent = _as_sent(result, Direction.MODULE_TO_CONTROLLER)
        switches = {name: value for name, value in sent.items() if value is None or isinstance(value, bool)}
        # Ansible masks what a module returns, and leaves to an action what that returns.
        return {**remove_values(sent, checked._no_log_values), **switches}

    def _act(self, call: Call) -> dict[str, Any]:
        try:
            return dict(self._do(call))
        except Exception as error:  # whatever it is: the task fails, and the play's rescue has a message
            result = at_most_one_entry.failed_result(error)
            if result is None:
                result = at_most_one_entry.refusal(
                    OperatorError(
                        observed(
                            "AMO-1001",
                            "{action} stopped with {kind}: {error}.",
                            action=self._task.action,
                            kind=type(error).__name__,
                            error=error,
                        ),
                        expected=say("an answer; this error is a fault of the project."),
                        next_step=say("report it with what the same command shows with -vvv."),
                    )
                )
                if Display().verbosity >= 3:
                    result["exception"] = traceback.format_exc()
            return result

    def _do(self, call: Call) -> dict[str, Any]:
        return dict(self.module.act(call))


def _as_sent(value: dict[str, Any], direction: Direction) -> dict[str, Any]:
    """As the other side would get it: plain values, without the marks that Ansible has put on its own."""
    text = json.dumps(value, cls=get_module_encoder("legacy", direction))
    return dict(json.loads(text, cls=get_module_decoder("legacy", direction)))
