"""library/release_hosts.py in the process of ansible-playbook, where it is delegated to localhost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible.plugins.loader import action_loader

if TYPE_CHECKING:
    from action_plugins.in_process import ActionModule as InProcess
else:
    InProcess = action_loader.get("in_process", class_only=True)


class ActionModule(InProcess):
    module = InProcess.load("release_hosts")
