"""A release is booted beside the service: real Node processes that answer, crash, stay silent or name another build."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
APP = """
const http = require("node:http"), { spawn } = require("node:child_process"), fs = require("node:fs");
spawn("sleep", ["300"]);  // a child that must not outlive the trial
fs.writeFileSync("pid", String(process.pid));
const server = http.createServer((request, response) => {
  %s
  response.setHeader("x-build", process.env.BUILD || "wanted");
  response.end(request.url);
});
server.listen(Number(process.argv[2]), "127.0.0.1");
"""
CRASH = 'console.error("password=hunter2 cannot start"); process.exit(3);'


@pytest.fixture
def boot(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Boots an application that does ``first`` with each request, or is ``source``; gives the module's result."""

    def run(first: str = "", source: str | None = None, **more: Any) -> dict[str, Any]:
        (tmp_path / "app.js").write_text(APP % first if source is None else source)
        arguments = {
            "release_path": str(tmp_path),
            "command": ["node", "app.js", "{port}"],
            "url": "https://service.invalid/api/health?x=1",
            "build": "wanted",
            "build_header": "x-build",
            "environment_path": str(ROOT / ".lab/bin"),
            "timeout_s": 3,
        }
        return run_module("release_boot", {**arguments, **more})

    return run


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(
        f"\nNSpgid:\t{group}\n" in status.read_text() and "State:\tZ" not in status.read_text()
        for status in Path("/proc").glob("[0-9]*/status")
        if status.exists()
    )


def test_a_good_release_answers_and_leaves_no_process(boot: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = boot()
    assert not result.get("failed"), result
    assert result["changed"] is False
    assert 0 < result["seconds"] < 3
    assert not alive(int((tmp_path / "pid").read_text()))


def test_one_that_listens_and_then_crashes_is_named_with_its_words(
    boot: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    result = boot(first=CRASH)
    assert "does not boot: it ended with exit code 3" in result["msg"]
    assert "cannot start" in result["msg"]
    assert "hunter2" not in result["msg"]
    assert not alive(int((tmp_path / "pid").read_text()))


def test_one_that_crashes_at_once(boot: Callable[..., dict[str, Any]]) -> None:
    assert "exit code 3" in boot(source=CRASH)["msg"]


def test_one_that_answers_and_ends_soon_after_is_met_here(boot: Callable[..., dict[str, Any]]) -> None:
    later = "setTimeout(() => { console.error('it does not last'); process.exit(3); }, 500);"
    result = boot(first=later, stable_s=20)
    assert "does not boot: it answered and then ended with exit code 3" in result["msg"]
    assert "it does not last" in result["msg"]


@pytest.mark.parametrize(
    ("second", "seen"),
    [
        ("process.exit(3);", "it answered and then ended with exit code 3"),
        ("response.statusCode = 500;", "it answered, and within 20 s no more: "),
    ],
)
def test_the_first_good_answer_is_not_the_last_word(
    boot: Callable[..., dict[str, Any]], second: str, seen: str
) -> None:
    result = boot(first=f"if (global.asked) {{ {second} }} global.asked = true;", stable_s=20)
    assert seen in result["msg"]


def test_one_that_lasts_is_good(boot: Callable[..., dict[str, Any]]) -> None:
    assert boot(stable_s=1)["seconds"] < 3


def test_one_that_stays_silent_is_ended(boot: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = boot(first="return;", timeout_s=1)
    assert "after 1 s" in result["msg"]
    assert not alive(int((tmp_path / "pid").read_text()))


def test_another_build_is_no_answer(boot: Callable[..., dict[str, Any]]) -> None:
    result = boot(build="other", timeout_s=60)
    assert "does not boot: it names build wanted." in result["msg"], "and nobody waits for it to name another one"


def test_an_answer_without_a_build_is_waited_upon(boot: Callable[..., dict[str, Any]]) -> None:
    assert "after 1 s, it names no build" in boot(build_header="x-other", timeout_s=1)["msg"]


def test_without_a_build_header_any_good_answer_counts(boot: Callable[..., dict[str, Any]]) -> None:
    assert not boot(build="other", build_header="").get("failed")


def test_a_command_without_a_port_is_refused(boot: Callable[..., dict[str, Any]]) -> None:
    assert "has no {port}" in boot(command=["node", "app.js"])["msg"]


PAGE = """
if (request.url === "/") {
  response.write('<link rel="stylesheet" href="/_next/static/a.css">');
  return response.end('<script src="/_next/static/chunks/b.js"></script>');
}
if (request.url.startsWith("/_next/")) response.statusCode = %s;
"""


def static_files(release: Path) -> None:
    for name in ("a.css", "chunks/b.js"):
        (release / ".next/static" / name).parent.mkdir(parents=True, exist_ok=True)
        (release / ".next/static" / name).write_text("")


def test_a_page_whose_parts_are_served_is_good(boot: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    static_files(tmp_path)
    assert not boot(first=PAGE % 200).get("failed")


def test_a_page_whose_script_is_not_served_stops_here(boot: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    static_files(tmp_path)
    result = boot(first=PAGE % "request.url.endsWith('.js') ? 404 : 200")
    for words in (
        "loads what the release does not serve: /_next/static/chunks/b.js: 404. Expected: 200",
        "Next: rm -rf",
    ):
        assert words in result["msg"]
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_script_that_another_release_hands_out_is_none_of_its_own(
    boot: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    static_files(tmp_path)
    (tmp_path / ".next/static/chunks/b.js").unlink()
    assert "/_next/static/chunks/b.js: not in this release" in boot(first=PAGE % 200)["msg"]


def test_a_build_that_lacks_files_of_its_manifest_is_not_even_started(
    boot: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    static_files(tmp_path)
    (tmp_path / ".next/build-manifest.json").write_text('{"rootMainFiles": ["static/chunks/gone.js"]}')
    assert "is not whole: it has no .next/static/chunks/gone.js." in boot()["msg"]
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize(("own", "said"), [("mine", ""), ("other", "does not boot: it names build other")])
def test_without_a_header_the_page_names_the_build(
    boot: Callable[..., dict[str, Any]], tmp_path: Path, own: str, said: str
) -> None:
    release = tmp_path / "releases/new"
    for name in ("mine", "other"):
        directory = release if name == "mine" else tmp_path / "releases/old"
        (directory / ".next").mkdir(parents=True)
        (directory / ".next/BUILD_ID").write_text(name)
    page = f"""if (request.url === "/") return response.end('<script>{{"buildId":"{own}"}}</script>');"""
    (release / "app.js").write_text(APP % page)
    result = boot(build="a commit", build_header="", release_path=str(release))
    assert bool(result.get("failed")) == bool(said)
    assert said in result.get("msg", "")
