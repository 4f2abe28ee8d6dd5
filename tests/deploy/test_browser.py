"""A page in a real browser, loaded before a cutover or a rollback: it keeps working, and no asset is ever missed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, Request

from tests.deploy.conftest import Lab, run_playbook
from tests.support import chromium
from tests.support.executions import Executions
from tests.support.ports import listens, wait_until

STATIC = ".next/static"
ROLLBACK = 7  # the most starts of Python for a module, to take a completed deployment back on one host


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium.launched() as launched:
        yield launched


class Asker:
    """Asks for every asset of a release over and over, from the first moment that a page may name it."""

    def __init__(self, lab: Lab, commit: str) -> None:
        self.lab, self.commit = lab, commit
        self.answers: Counter[tuple[str, int]] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        url = self.lab.values["app_url"]
        while not self._named() and not self._stop.wait(0.01):
            pass
        while not self._stop.is_set():
            for name in self.names():
                try:
                    with urlopen(f"{url}/_next/static/{name}", timeout=10) as answer:
                        self.answers[name, answer.status] += 1
                except HTTPError as refused:
                    self.answers[name, refused.code] += 1

    def _named(self) -> bool:
        """Whether an instance of that build serves, or soon will: the link leads to it."""
        return self.commit in (self.lab.link, Path(self.lab.link).name, self.lab.values["commit_before"])

    def names(self) -> list[str]:
        """The assets of the build, as its own list has them."""
        releases = Path(self.lab.values["app_path"] + ".releases")
        release = releases / self.commit
        root = release if release.exists() else Path(self.lab.values["app_path"])
        listed = root / ".at-most-one-assets.json"
        carried = json.loads(listed.read_text()) if listed.exists() else {}
        files = [path for path in (root / STATIC).rglob("*") if path.is_file()]
        return sorted(name for path in files if (name := path.relative_to(root / STATIC).as_posix()) not in carried)


def test_a_page_loaded_before_the_cutover_keeps_working(fresh: Lab, browser: Browser) -> None:
    """And what a reboot brings back afterwards is the release that was proven, where a checkout in place was before."""
    page, failures = opened(browser, fresh)
    assert commit_of(page) == fresh.values["commit_before"][:12]
    assert fresh.link == "in place"

    before, after = Asker(fresh, fresh.values["commit_before"]), Asker(fresh, fresh.values["commit_after"])
    with before, after:
        run = run_playbook("deploy.yml")
        assert run.code == 0, run.output

    require_every_asset(before, after)
    assert run.report["traffic"]["failures"] == 0

    page.get_by_role("button").click()  # asks for a chunk of the old build, for the first time
    page.get_by_text(re.compile(r"점검을 시작하세요\.$")).wait_for()
    page.get_by_role("link").click()
    page.get_by_role("heading", name="이 실험실에 대하여").wait_for()
    assert commit_of(page) == fresh.values["commit_after"][:12]
    page.go_back()
    page.get_by_text("현재 시각: 2").wait_for()
    assert failures == []

    reboot(fresh)
    assert fresh.served(20) == {fresh.values["commit_after"]}
    page.reload()
    assert commit_of(page) == fresh.values["commit_after"][:12]


def test_a_page_of_the_withdrawn_build_keeps_working_through_a_rollback(
    deployed_ground: Lab, browser: Browser, tmp_path: Path
) -> None:
    """Also where the application has no rewrite of its own for assets that its process does not know."""
    lab, executions = deployed_ground, Executions(tmp_path)
    old = Path(lab.values["app_path"] + ".releases") / lab.values["commit_before"]
    page, failures = opened(browser, lab)
    assert commit_of(page) == lab.values["commit_after"][:12]

    with without_its_rewrite(old):
        before, after = Asker(lab, lab.values["commit_before"]), Asker(lab, lab.values["commit_after"])
        with before, after:
            run = run_playbook("rollback.yml", *executions.arguments)
            assert run.code == 0, run.output
            assert executions.counted() <= ROLLBACK
        assert (lab.indexes(), lab.fences(), lab.archived(), lab.duplicate_groups()) == ({}, 0, 0, 10)
        assert lab.served(20) == {lab.values["commit_before"]}
        late = old / STATIC / "late.js"
        late.write_text("// next start knows only the files that were there when it started")
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{lab.values['app_url']}/_next/static/late.js", timeout=10)
        late.unlink()
        require_every_asset(before, after)

        page.get_by_role("button").click()  # asks for a chunk of the withdrawn build, for the first time
        page.get_by_text("다른 점검이 진행 중인 장비는 고를 수 없습니다.").wait_for()  # as only that build has it
        page.get_by_role("link").click()
        page.get_by_role("heading", name="이 실험실에 대하여").wait_for()
        assert commit_of(page) == lab.values["commit_before"][:12]
        assert failures == []


@contextmanager
def without_its_rewrite(release: Path) -> Iterator[None]:
    """The release without its fallback for unknown assets (app/assets): from the next start of its processes."""
    manifest = release / ".next/routes-manifest.json"
    text = manifest.read_text()
    content = json.loads(text)
    content["rewrites"]["fallback"] = []
    manifest.write_text(json.dumps(content))
    try:
        yield
    finally:
        manifest.write_text(text)


def opened(browser: Browser, lab: Lab) -> tuple[Page, list[str]]:
    """A page of the service whose scripts run, and every failure that it will meet."""
    page = browser.new_page()
    failures: list[str] = []
    page.on(
        "response", lambda answer: failures.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
    )
    page.on("requestfailed", lambda request: None if given_up(request) else failures.append(told(request)))
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(lab.values["app_url"] + "/")
    page.get_by_text("현재 시각: 2").wait_for()  # hydrated
    return page, failures


def require_every_asset(before: Asker, after: Asker) -> None:
    for asker in (before, after):
        assert {status for _, status in asker.answers} == {200}, asker.answers
        assert {name for name, _ in asker.answers} == set(asker.names())
    assert set(before.names()) != set(after.names())


def given_up(request: Request) -> bool:
    """Whether the page itself cut its question for a part of a page short: it loads the whole page of another build.

    A connection that the service loses has another name, such as net::ERR_CONNECTION_RESET.
    """
    return request.failure == "net::ERR_ABORTED" and "_rsc" in parse_qs(urlsplit(request.url).query)


def told(request: Request) -> str:
    return f"{request.failure} {request.url}"


def commit_of(page: Page) -> str:
    return page.locator("code").inner_text()


def reboot(lab: Lab) -> None:
    """What a reboot does to PM2: the daemon and its processes are gone, and its start-up script resurrects the dump."""
    environment = {"PATH": lab.values["path"], "PM2_HOME": lab.values["pm2_home"], "HOME": os.environ["HOME"]}
    pids = lab.pids()
    for command in ("kill", "resurrect"):
        subprocess.run([lab.values["pm2_bin"], command], env=environment, capture_output=True, check=True)
        if command == "kill":
            assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    port = urlsplit(lab.values["app_url"]).port or 80
    wait_until(lambda: listens("127.0.0.1", port), why="nothing listens after the reboot")
