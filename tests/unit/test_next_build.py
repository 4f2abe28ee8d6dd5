"""What a build is told by. The manifests are those of `next build` 16.4.5 for a page with a server action.

``one`` and ``another`` are two builds of the same code; ``with_a_key`` is a third, made with a key of zeros in
.env.production. A fourth, made with it again, had the very same ids.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from at_most_one.release import next_build

ROOT = Path(__file__).parents[2]
MANIFESTS = Path(__file__).parent / "next_build"
ZEROS = "A" * 43 + "="


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(next_build.KEY, raising=False)


def release(path: Path, manifest: str | None = None, build_id: str = "G-R8Gx1E", **assets: str) -> Path:
    (path / ".next/server").mkdir(parents=True)
    (path / ".next/static/chunks").mkdir(parents=True)
    (path / ".next/BUILD_ID").write_text(build_id)
    for name, content in assets.items():
        (path / f".next/static/chunks/{name}.js").write_text(content)
    if manifest:
        shutil.copy(MANIFESTS / f"{manifest}.json", path / ".next/server/server-reference-manifest.json")
    return path


def test_two_builds_of_the_same_code_differ_in_id_and_actions(tmp_path: Path) -> None:
    one = next_build.read(release(tmp_path / "one", "one", main="x"), tmp_path / "one")
    another = next_build.read(release(tmp_path / "another", "another", "9AhaoyNU", main="x"), tmp_path / "one")

    assert one.serves.build_id != another.serves.build_id
    assert one.serves.actions != another.serves.actions
    assert one.serves.static == another.serves.static
    assert (another.server_actions.count, another.server_actions.pages) == (1, ["/note"])
    assert another.server_actions.gone == 1
    assert not one.server_actions.key_stays
    assert not another.server_actions.key_stays


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (".env", f"{next_build.KEY}={ZEROS}"),
        (".env.production", f'A=1\nexport {next_build.KEY} = "{ZEROS}" # all builds\n'),
        (".env.local", f"{next_build.KEY}='{ZEROS}'"),
    ],
)
def test_a_key_that_an_env_file_names_stays(tmp_path: Path, file: str, line: str) -> None:
    path = release(tmp_path / "one", "with_a_key")
    (path / file).write_text(line)
    assert next_build.read(path, path).server_actions.key_stays


def test_a_key_that_was_named_after_the_build_does_not_count(tmp_path: Path) -> None:
    path = release(tmp_path / "one", "one")
    (path / ".env").write_text(f"{next_build.KEY}={ZEROS}\n")
    assert not next_build.read(path, path).server_actions.key_stays


def test_a_key_of_the_environment_or_of_the_served_build_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, served = release(tmp_path / "new", "with_a_key"), release(tmp_path / "served", "with_a_key", "old")
    assert not next_build.read(path, path).server_actions.key_stays
    assert next_build.read(path, served).server_actions.key_stays
    assert next_build.read(path, served).server_actions.gone == 0
    monkeypatch.setenv(next_build.KEY, ZEROS)
    assert next_build.read(path, path).server_actions.key_stays


def test_the_key_is_in_no_result(tmp_path: Path) -> None:
    path = release(tmp_path / "one", "with_a_key")
    assert ZEROS not in json.dumps(next_build.read(path, path).kept())


def test_assets_of_earlier_builds_do_not_make_another_build(tmp_path: Path) -> None:
    """What a host has carried into its release is its own history."""
    first, second = release(tmp_path / "1", main="x"), release(tmp_path / "2", main="x", old="y")
    assert next_build.read(first, first).serves != next_build.read(second, second).serves
    (second / ".at-most-one-assets.json").write_text('{"chunks/old.js": 1}')
    assert next_build.read(first, first).serves == next_build.read(second, second).serves


def test_without_a_build_everything_is_empty(tmp_path: Path) -> None:
    assert next_build.read(tmp_path, tmp_path).kept() == {
        "serves": {"build_id": "", "static": "", "actions": ""},
        "server_actions": {"count": 0, "pages": [], "gone": 0, "key_stays": False},
    }


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_command_that_sets_a_key_leaves_the_line_before_it_whole(tmp_path: Path, language: str) -> None:
    """A file whose last line has no end: the key behind it would become a part of the service's last value."""
    template = (ROOT / f"roles/prepare/templates/server_actions.{language}.j2").read_text()
    (command,) = re.findall(r": ((?:echo|printf) .*) >> \{\{", template)
    shared = tmp_path / ".env.production"
    shared.write_text("DATABASE_URL=postgresql://somewhere/service")
    append = command.replace("openssl rand -base64 32", f"echo {ZEROS}")
    subprocess.run(["/bin/sh", "-c", f"{append} >> {shared}"], check=True)
    assert [line for line in shared.read_text().splitlines() if line] == [
        "DATABASE_URL=postgresql://somewhere/service",
        f"{next_build.KEY}={ZEROS}",
    ]
