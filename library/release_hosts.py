#!/usr/bin/python
"""Ansible module: decide which host builds a release, and which ones get it from there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_hosts
short_description: Decide which hosts build a release, which ones get it from there, and whether all will serve the same
description:
  - Asks no host. It decides from what M(release_info) and M(release_build) have returned, and is called again whenever
    there is more of it.
  - Stops when a host cannot run what another one builds for it, and when hosts would serve different builds. A build
    that is yet to be made is not judged.
options:
  found:
    description: What M(release_info) has returned, by host.
    type: dict
    required: true
  made:
    description: What M(release_build) has returned, by host; empty for a host where it was not called.
    type: dict
    default: {}
  builder:
    description: The host that builds for all of them.
    type: str
    required: true
  mode:
    description: Whether the release is built V(once), or by V(each) host for itself.
    type: str
    choices: [once, each]
    default: once
  commit:
    description: The commit of the release, for the messages.
    type: str
    required: true
  env_file:
    description: The file in which a build finds the key of its server actions, for the messages.
    type: str
    default: .env
extends_documentation_fragment:
  - at_most_one.in_process
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Decide which host builds the release
  release_hosts:
    found: {web1: "{{ hostvars.web1.release }}", web2: "{{ hostvars.web2.release }}"}
    builder: web1
    commit: 4b825dc642cb6eb9a060e54bf8d69288fbee4904
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
builds:
  description: The hosts that build the release.
  returned: success
  type: list
  elements: str
  sample: [web1]
links:
  description: The hosts whose finished release lacks a link to a shared file.
  returned: success
  type: list
  elements: str
  sample: []
lacks:
  description: The hosts that get the release from O(builder); none before it is finished there.
  returned: success
  type: list
  elements: str
  sample: [web2]
changes:
  description: Whether anything of it changes a host, or has changed one.
  returned: success
  type: bool
  sample: true
makes:
  description: Whether anything of a release is to be made, tried or compared. One that does not serve has yet to boot.
  returned: success
  type: bool
  sample: true
marker:
  description: The marker of the release of O(builder), empty before it is finished.
  returned: success
  type: dict
server_actions:
  description: The server actions of the build of O(builder), as M(release_info) returns them, empty where unknown.
  returned: success
  type: dict
loses_server_actions:
  description: Whether pages that are open in the cutover would call server actions that this build does not know.
  returned: success
  type: bool
  sample: false
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.release import sharing
from ansible.module_utils.at_most_one_entry import Call, run

OPTIONS = {
    "found": {"type": "dict", "required": True},
    "made": {"type": "dict", "default": {}},
    "builder": {"type": "str", "required": True},
    "mode": {"type": "str", "choices": [sharing.ONCE, sharing.EACH], "default": sharing.ONCE},
    "commit": {"type": "str", "required": True},
    "env_file": {"type": "str", "default": ".env"},
}


def act(call: Call) -> dict[str, Any]:
    """Decide, and refuse what must not be."""
    given = call.params
    hosts = {name: sharing.Host.of(found, given["made"].get(name, {})) for name, found in given["found"].items()}
    fleet = sharing.Fleet(hosts, given["builder"], given["mode"])
    sharing.require_platforms(fleet, given["env_file"])
    sharing.require_one_build(fleet, given["commit"], given["env_file"])
    return {
        "changed": False,
        **asdict(sharing.work(fleet)),
        "marker": dict(fleet.reference.marker),
        "server_actions": fleet.reference.build.get("server_actions", {}),
        "loses_server_actions": sharing.loses_server_actions(fleet),
    }


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
