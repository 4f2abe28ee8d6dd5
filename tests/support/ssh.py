"""Hosts on one machine: an sshd of its own for each, on a loopback address of its own, with throw-away keys."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from at_most_one.system.processes import children, command_line

from tests.support.ports import free_port, listens, wait_until

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

# As root, sshd asks PAM whether the account may log in: without it an account whose password is locked may not.
CONFIGURATION = """\
ListenAddress {address}
Port {port}
HostKey {directory}/host_key
PidFile {directory}/sshd.pid
AuthorizedKeysFile {keys}/key.pub
StrictModes no
UsePAM {pam}
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
MaxSessions 100
PrintMotd no
SetEnv SHLVL=3
Subsystem sftp internal-sftp
"""


def make_key(path: Path) -> None:
    """A key pair for this test alone."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "at-most-one test", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)


def _sessions(pid: int) -> list[int]:
    """The processes of sshd that serve connections, below this one."""
    found = [child for child in children(pid) if command_line(child).startswith("sshd:")]
    return [*found, *(below for child in found for below in _sessions(child))]


@dataclass
class SshHost:
    """One host: a name, an address, a directory with everything that is its own, and the sshd that leads there."""

    name: str
    address: str
    directory: Path
    keys: Path
    port: int = field(init=False)
    _sshd: subprocess.Popen[bytes] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.port = free_port(self.address)
        make_key(self.directory / "host_key")
        public = (self.directory / "host_key.pub").read_text().split(" at-most")[0]
        with (self.keys / "known_hosts").open("a") as known:
            known.write(f"[{self.address}]:{self.port} {public}\n")

    def open(self) -> None:
        """Start sshd and wait until it listens."""
        if SSHD is None:
            pytest.fail("There is no sshd. Expected: openssh-server. Next: make test-packages says what to install.")
        root = os.geteuid() == 0
        if root:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd separates its privileges
        configuration = self.directory / "sshd_config"
        configuration.write_text(
            CONFIGURATION.format(
                address=self.address,
                port=self.port,
                directory=self.directory,
                keys=self.keys,
                pam="yes" if root else "no",
            )
        )
        with (self.directory / "sshd.log").open("ab") as log:
            self._sshd = subprocess.Popen([SSHD, "-D", "-e", "-f", str(configuration)], stdout=log, stderr=log)
        wait_until(lambda: listens(self.address, self.port), why=(self.directory / "sshd.log").read_text)

    def lose(self) -> None:
        """The host is gone for everybody who comes by ssh: its sshd ends, and every connection through it."""
        if self._sshd is None:
            return
        for pid in [self._sshd.pid, *_sessions(self._sshd.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._sshd.wait(timeout=10)
        self._sshd = None

    def variables(self) -> dict[str, Any]:
        """How Ansible reaches it. The host's key is known, and an unknown one is refused."""
        return {
            "ansible_host": self.address,
            "ansible_port": self.port,
            "ansible_ssh_private_key_file": str(self.keys / "key"),
            "ansible_control_path_dir": str(self.keys / "cp"),
            "ansible_ssh_common_args": f"-F /dev/null -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes"
            f" -o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile={self.keys / 'known_hosts'}",
        }
