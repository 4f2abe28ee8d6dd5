#!/usr/bin/python
"""Put the application back as it is before a deployment: a checkout in its own path, no link, no releases."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.lab_files import remove, run, write_private

DOCUMENTATION = r"""
module: lab_checkout
short_description: Restore the application's in-place checkout from a finished build
description:
  - Removes the link, the releases and the logs of earlier deployments, then copies the finished build to O(path).
  - Installed packages are hard links to those of the build, as nothing writes them in place; all else is a copy.
author: at-most-one maintainers
options:
  build:
    description: The finished build of the commit before.
    type: path
    required: true
  path:
    description: The application's path.
    type: path
    required: true
  keep_builds:
    description: Keep the finished builds of other commits among the releases.
    type: bool
    default: false
  settings:
    description: The lab's C(lab.json), from which the application's C(.env.production) is made.
    type: path
    required: true
  absent_only:
    description: Change nothing when the application's path is already there.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Says that it would restore.}
  diff_mode: {support: none, description: The environment holds passwords.}
"""

EXAMPLES = r"""
- name: Restore the checkout
  lab_checkout:
    build: "{{ lab_root }}/cache/0123456789abcdef0123456789abcdef01234567"
    path: "{{ lab_root }}/www/aedpics"
    settings: "{{ lab_root }}/lab.json"
"""

RETURN = r"""
kept:
  description: Commits whose builds were kept among the releases.
  type: list
  returned: always
  sample: []
"""


def finished(release: Path, before: str) -> bool:
    """Whether a release directory holds the whole build of a commit other than the one before."""
    named = re.fullmatch(r"[0-9a-f]{40}", release.name) is not None and release.name != before
    return named and not release.is_symlink() and (release / ".next" / "BUILD_ID").is_file()


def clear(path: Path, before: str, *, keep_builds: bool) -> list[str]:
    """Remove what deployments have left. Returns the names of the releases that stay."""
    releases = Path(f"{path}.releases")
    remove(path)
    remove(Path(f"{path}.logs"))
    kept = []
    for release in sorted(releases.iterdir()) if releases.is_dir() else []:
        if keep_builds and finished(release, before):
            kept.append(release.name)
        else:
            remove(release)
    if not kept:
        remove(releases)
    return kept


def restore(build: Path, path: Path) -> None:
    """Copy the build to its place; it appears there only when it is whole."""
    partial = path.with_name(f"{path.name}.partial")
    remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only the packages at the top: the build has a node_modules of its own, links to packages, in .next.
    packages = "node_modules"
    shutil.copytree(build, partial, symlinks=True, ignore=lambda at, _: [packages] if Path(at) == build else [])
    linked = run(["cp", "--archive", "--link", build / packages, partial / packages])
    if linked.returncode:
        raise OSError(linked.stdout.strip())
    partial.rename(path)
    Path(f"{path}.logs").mkdir()


def environment_of(settings: Path) -> str:
    """The application's .env.production: what the guide's service has in its own."""
    lab = json.loads(settings.read_text(encoding="utf-8"))
    login = f"{lab['database_user']}:{lab['database_password']}@{lab['database_host']}:{lab['database_port']}"
    values = {
        "DATABASE_URL": f"postgresql://{login}/{lab['database_name']}?schema={lab['database_schema']}",
        "NEXTAUTH_URL": lab["app_url"],
        "NEXTAUTH_SECRET": lab["nextauth_secret"],
        "CRON_TOKEN": lab["cron_token"],
        "PORT": lab["app_port"],
        "APP_PATH": lab["app_path"],
    }
    return "".join(f'{name}="{value}"\n' for name, value in values.items())


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "build": {"type": "path", "required": True},
            "path": {"type": "path", "required": True},
            "keep_builds": {"type": "bool", "default": False},
            "settings": {"type": "path", "required": True},
            "absent_only": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    build, path = Path(module.params["build"]), Path(module.params["path"])
    kept: list[str] = []
    changed = not (module.params["absent_only"] and (path / ".next" / "BUILD_ID").is_file())
    if changed and not module.check_mode:
        try:
            kept = clear(path, build.name, keep_builds=module.params["keep_builds"])
            restore(build, path)
        except OSError as failure:
            module.fail_json(msg=f"The checkout was not restored from {build}: {failure}.")
        write_private(path / ".env.production", environment_of(Path(module.params["settings"])))
    module.exit_json(changed=changed, kept=kept)


if __name__ == "__main__":
    main()
