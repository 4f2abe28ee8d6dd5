"""Action of duplicate_rows: bring the files of clean-up plans from and to the host where the module runs.

It starts no module for that, and streams: neither side holds all rows. What it leaves on that host is gone when the
task ends.
"""

from __future__ import annotations

import base64
import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import action_loader

action_loader.get("in_process", class_only=True)  # lets the core be imported here
from ansible.module_utils import at_most_one_entry  # noqa: E402
from ansible.module_utils.at_most_one.errors import OperatorError  # noqa: E402
from ansible.module_utils.at_most_one.findings import observed, say  # noqa: E402
from ansible.module_utils.at_most_one.system import files  # noqa: E402


class ActionModule(ActionBase):
    """``reviewed`` is read here, and so is ``path``, but that ``reported`` writes it."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            return self._run(task_vars)
        except OperatorError as stop:
            return at_most_one_entry.refusal(stop)

    def _run(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        arguments = dict(self._task.args)
        reported = arguments.get("state") == "reported"
        sent = {}
        for name in ["reviewed"] if reported else ["reviewed", "path"]:
            if arguments.get(name):
                arguments[name] = str(Path(arguments[name]).expanduser().resolve())
                sent[name] = self._send(Path(arguments[name]))
        if not (reported and arguments.get("path")):
            return self._call(arguments, sent, task_vars)
        with self._private_directory() as directory:
            sent["path"] = self._connection._shell.join_path(directory, "cleanup_plan.json")
            result = self._call(arguments, sent, task_vars)
            if not result.get("failed"):
                self._bring(sent["path"], Path(arguments["path"]), task_vars)
            return result

    def _call(
        self, arguments: dict[str, Any], sent: dict[str, str], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Run the module. An error names the file as the task does, not its copy."""
        result: dict[str, Any] = self._execute_module(module_args={**arguments, **sent}, task_vars=task_vars)
        for name, remote in sent.items():
            result = _replaced(result, remote, str(arguments[name]))
        return result

    def _send(self, path: Path) -> str:
        """Copy the file into the task's temporary directory, which Ansible removes after the task."""
        directory = self._connection._shell.tmpdir or self._make_tmp_path()
        remote: str = self._connection._shell.join_path(directory, "reviewed.json")
        with _explained(path):
            path.open("rb").close()
        self._transfer_file(str(path), remote)
        self._fixup_perms2((directory, remote))
        return remote

    @contextlib.contextmanager
    def _private_directory(self) -> Iterator[str]:
        """A directory that belongs to the account that the module runs as, and that nobody else may enter."""
        made = self._low_level_execute_command("umask 077 && mktemp -d -t at-most-one.XXXXXXXXXX")
        directory = made["stdout"].strip()
        if made["rc"] or not directory:
            raise OperatorError(
                observed(
                    "AMO-1033",
                    "No temporary directory could be made for the clean-up plan: {said}.",
                    said=made["stderr"].strip() or made["rc"],
                ),
                expected=say("a directory for temporary files with free space."),
                next_step=say("free some there, then run again."),
            )
        try:
            yield directory
        finally:
            self._low_level_execute_command(f"rm -rf -- {shlex.quote(directory)}")

    def _bring(self, remote: str, path: Path, task_vars: dict[str, Any] | None) -> None:
        """Replace the file here by the one there, for its owner and group. A reader checks its digest, not this."""
        with _explained(path), files.replacing(path, 0o640) as file:
            if self._connection.become:  # then the file belongs to an account that the connection cannot read
                read = self._execute_module("ansible.legacy.slurp", {"src": remote}, task_vars=task_vars)
                if read.get("failed"):
                    raise AnsibleActionFail(str(read.get("msg")), result=read)
                file.write(base64.b64decode(read["content"]))
            else:
                self._connection.fetch_file(remote, file.name)


def _replaced(value: Any, old: str, new: str) -> Any:
    """``value`` with ``new`` for ``old`` in each text inside of it."""
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return value.replace(old, new) if isinstance(value, str) else value


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OperatorError(
            observed("AMO-1034", "{path}: {reason}.", path=error.filename or path, reason=error.strerror or error),
            expected=say("a file on the control node that this account may read, or a directory that it may write to."),
            next_step=say("give it that right, then run again."),
        ) from error
