"""A connection to this machine that is lost as soon as a file is there: what a cut network looks like to Ansible."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = r"""
name: losing
short_description: The local connection, until the file in E(LOST_WHEN) is there
description:
  - For tests alone.
author: the at-most-one maintainers
options:
  pipelining:
    description: As with any other connection.
    type: boolean
    default: true
    vars:
      - name: ansible_pipelining
"""


class Connection(Local):
    """Runs commands as the local connection does, and then no more."""

    transport = "losing"

    def exec_command(self, *given: Any, **named: Any) -> tuple[int, bytes, bytes]:
        if os.path.exists(os.environ["LOST_WHEN"]):
            raise AnsibleConnectionFailure("Connection closed by remote host")
        done: tuple[int, bytes, bytes] = super().exec_command(*given, **named)
        return done
