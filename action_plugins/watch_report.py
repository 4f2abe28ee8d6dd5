"""library/watch_report.py in the process of ansible-playbook, where it is delegated to localhost."""

from __future__ import annotations

from ansible.plugins.loader import action_loader

ActionModule = action_loader.get("in_process", class_only=True).of("watch_report")
