"""A module of library/ in a process of its own, with its arguments on standard input: what AnsiballZ does."""

from __future__ import annotations

# Without the archive: our module_utils join Ansible's, the parameters are there before main(). The arguments of
# `python -c` are the module's file and the directories of module_utils.
HARNESS = """
import runpy, sys
import ansible.module_utils
ansible.module_utils.__path__ += sys.argv[2:]
from ansible.module_utils import basic
basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = sys.stdin.buffer.read(), "legacy"
runpy.run_path(sys.argv[1], run_name="__main__")
"""
