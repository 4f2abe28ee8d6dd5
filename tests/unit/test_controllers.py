"""Whether the process of a run is gone for certain: what cannot be seen counts as alive."""

from __future__ import annotations

import os
import socket

import pytest
from at_most_one.runs import controllers
from at_most_one.runs.controllers import Controller
from at_most_one.system import processes

ME = Controller(socket.gethostname(), os.getpid())


def hide_processes(monkeypatch: pytest.MonkeyPatch, answer: type[OSError] | None) -> None:
    """As /proc with hidepid does: nothing is seen of the process; ``answer`` is what asking it with a signal gets."""
    monkeypatch.setattr(processes, "start_ticks", lambda pid: None)

    def kill(pid: int, signal: int) -> None:
        assert signal == 0, "it only asks"
        if answer is not None:
            raise answer

    monkeypatch.setattr(os, "kill", kill)


@pytest.mark.parametrize(
    ("answer", "dead"),
    [
        pytest.param(PermissionError, False, id="somebody else's, hidden"),
        pytest.param(ProcessLookupError, True, id="gone"),
        pytest.param(None, True, id="ours, and no more than a zombie"),
    ],
)
def test_a_process_of_which_proc_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, answer: type[OSError] | None, dead: bool
) -> None:
    process = ME.process()
    assert process is not None
    hide_processes(monkeypatch, answer)
    assert controllers.proven_dead(process, ME.pid) is dead
    assert not controllers.proven_alive(process, ME.pid)


def test_a_process_of_another_boot_or_host_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pid may be given to another process here, or to none."""
    assert Controller("elsewhere", ME.pid).process() is None
    before = f"another-boot/{(ME.process() or '').partition('/')[2]}"
    hide_processes(monkeypatch, ProcessLookupError)
    assert not controllers.proven_dead(before, ME.pid)
    assert not controllers.proven_dead(None, ME.pid)
    assert not controllers.proven_alive(before, ME.pid)


def test_a_process_that_is_there_is_alive() -> None:
    assert controllers.proven_alive(ME.process(), ME.pid)
    assert not controllers.proven_dead(ME.process(), ME.pid)
