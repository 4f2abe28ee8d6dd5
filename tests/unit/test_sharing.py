"""Which host builds a release, which ones get it from there, and which differences between hosts stop a run."""

from __future__ import annotations

from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.release.sharing import (
    EACH,
    ONCE,
    Fleet,
    Host,
    loses_server_actions,
    require_one_build,
    require_platforms,
    work,
)

NODE = "Node.js 24, x64, glibc"


def build(name: str, **marker: str) -> dict[str, Any]:
    """The build of this name; without a marker nobody has finished it."""
    serves = {"build_id": name, "static": f"static of {name}", "actions": ""}
    return {"serves": serves, "marker": marker, "server_actions": {"count": 0, "pages": [], "gone": 0}}


NEW = {"built": False, "live": False, "shared": False, "platform": NODE, "build": build("")}
DONE = {**NEW, "built": True, "shared": True, "build": build("one", digest="1")}
OTHER = {**DONE, "build": build("two", digest="2")}
BUILT = {"build": build("one", digest="1"), "finished": True}
LINKED = {"build": build("two", digest="2"), "finished": False}


def fleet(*found: dict[str, Any], mode: str = ONCE, **made: dict[str, Any]) -> Fleet:
    names = [f"web{number}" for number in range(1, len(found) + 1)]
    hosts = {name: Host.of(one, made.get(name, {})) for name, one in zip(names, found, strict=True)}
    return Fleet(hosts, "web1", mode)


@pytest.mark.parametrize(
    ("asked", "builds", "links", "lacks"),
    [
        (fleet(NEW), ["web1"], [], []),
        (fleet(DONE), [], [], []),
        (fleet({**DONE, "shared": False}), [], ["web1"], []),
        (fleet({**NEW, "live": True}), [], ["web1"], []),
        (fleet(NEW, NEW), ["web1"], [], []),
        (fleet(NEW, NEW, web1=BUILT), ["web1"], [], ["web2"]),
        (fleet(NEW, NEW, web1=BUILT, web2=BUILT), ["web1"], [], []),
        (fleet(NEW, NEW, mode=EACH), ["web1", "web2"], [], []),
        (fleet(DONE, DONE), [], [], []),
        (fleet(DONE, OTHER), [], [], ["web2"]),
        (fleet(DONE, {**OTHER, "live": True}), [], [], []),
        (fleet(DONE, {**DONE, "build": build("one")}), [], [], ["web2"]),
        (fleet(NEW, {**OTHER, "shared": False}), ["web1"], ["web2"], []),
        (fleet(NEW, {**OTHER, "shared": False}, web1=BUILT, web2=LINKED), ["web1"], [], ["web2"]),
        (fleet(DONE, {**OTHER, "shared": False}), [], [], ["web2"]),
        (fleet(NEW, DONE, web1=BUILT), ["web1"], [], []),
    ],
)
def test_who_has_what_to_do(asked: Fleet, builds: list[str], links: list[str], lacks: list[str]) -> None:
    todo = work(asked)
    assert (todo.builds, todo.links, todo.lacks) == (builds, links, lacks)
    assert todo.changes is bool(builds or links or lacks)


def test_what_this_run_has_shipped_is_a_change_afterwards_too() -> None:
    assert work(fleet(DONE, OTHER, web2=BUILT)).changes
    assert not work(fleet(DONE, DONE)).changes


@pytest.mark.parametrize(
    ("asked", "makes"),
    [
        (fleet({**DONE, "live": True}), False),
        (fleet(DONE), True),
        (fleet({**DONE, "live": True, "shared": False}), True),
        (fleet({**DONE, "live": True}, {**DONE, "live": True}), True),
    ],
)
def test_a_release_that_does_not_serve_yet_has_still_to_boot(asked: Fleet, makes: bool) -> None:
    assert work(asked).makes is makes


@pytest.mark.parametrize(
    "asked",
    [
        fleet(NEW),
        fleet(NEW, OTHER),  # to be compared once it is built
        fleet(NEW, OTHER, mode=EACH),
        fleet(DONE, OTHER),  # it gets the other one
        fleet(DONE, NEW, mode=EACH),
        fleet(DONE, OTHER, web2=BUILT),
        fleet(NEW, NEW, web1=BUILT, web2=BUILT),
    ],
)
def test_builds_that_are_the_same_or_yet_to_come(asked: Fleet) -> None:
    require_one_build(asked, "a" * 40, ".env")


@pytest.mark.parametrize(
    ("asked", "next_step"),
    [
        (fleet(DONE, {**OTHER, "live": True}), "git commit --allow-empty"),
        (fleet(DONE, OTHER, mode=EACH), "deploy with -e release_build=once"),
        (fleet(NEW, OTHER, mode=EACH, web1=BUILT), "NEXT_SERVER_ACTIONS_ENCRYPTION_KEY in .env of every host"),
        (fleet(DONE, OTHER, web2={**LINKED, "finished": True}), "git commit --allow-empty"),  # shipped, and yet another
    ],
)
def test_hosts_that_would_serve_different_builds_are_refused(asked: Fleet, next_step: str) -> None:
    with pytest.raises(OperatorError) as stopped:
        require_one_build(asked, "a" * 40, ".env")
    assert "web2 would serve build two of aaaaaaaaaaaa, web1 build one." in stopped.value.seen
    assert stopped.value.seen.endswith("What differs: build id, assets.")
    assert next_step in stopped.value.next_step


def test_what_one_host_builds_the_others_must_be_able_to_run() -> None:
    other = {**NEW, "platform": "Node.js 18, x64, glibc"}
    with pytest.raises(OperatorError) as stopped:
        require_platforms(fleet(NEW, other, NEW), ".env")
    assert stopped.value.seen == f"web2 has Node.js 18, x64, glibc. web1, where the release is built, has {NODE}."
    require_platforms(fleet(NEW, other, mode=EACH), ".env")
    require_platforms(fleet(NEW, NEW), ".env")


@pytest.mark.parametrize(
    ("count", "key_stays", "live", "loses"),
    [(2, False, False, True), (0, False, False, False), (2, True, False, False), (2, False, True, False)],
)
def test_server_actions_that_open_pages_would_miss(count: int, key_stays: bool, live: bool, loses: bool) -> None:
    actions = {"count": count, "pages": ["/"], "gone": 1, "key_stays": key_stays}
    made = {"build": {**build("one", digest="1"), "server_actions": actions}, "finished": True}
    assert loses_server_actions(fleet({**NEW, "live": live}, web1=made)) is loses
    assert not loses_server_actions(fleet({name: NEW[name] for name in ("built", "live", "shared")}))
