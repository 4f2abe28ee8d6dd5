"""nginx in front of the hosts: the distribution's program, a configuration and a port of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.ports import free_port, listens, wait_until

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

CONFIGURATION = """\
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream hosts {{
{servers}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://hosts; }}
    # While hosts have different releases, the one that is asked may not have the asset: the others are asked too.
    location /_next/static/ {{
      proxy_pass http://hosts;
      proxy_next_upstream error timeout http_404;
    }}
  }}
}}
"""


class Nginx:
    """Started and stopped by its process, never by its name."""

    def __init__(self, directory: Path, upstreams: Sequence[str]) -> None:
        directory.mkdir()
        self.directory, self.upstreams, self.port = directory, upstreams, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if NGINX is None:
            pytest.fail(
                "There is no nginx. Expected: the package nginx. Next: make test-packages says what to install."
            )
        configuration = self.directory / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                user="user root;" if os.geteuid() == 0 else "",
                directory=self.directory,
                port=self.port,
                servers="\n".join(f"    server {url.removeprefix('http://')};" for url in self.upstreams),
            )
        )
        log = self.directory / "error.log"
        command = [NGINX, "-c", str(configuration), "-p", str(self.directory), "-e", str(log)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: listens("127.0.0.1", self.port), why="nginx does not listen")

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None
