"""Two operators start at once: one run goes on, the other one ends at once and says whose it met."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.deploy.conftest import ROOT, Lab

TWICE_MORE = pytest.mark.thorough  # the same race again: tests/database/test_two_starts.py has it often


@pytest.mark.parametrize("turn", [0, pytest.param(1, marks=TWICE_MORE), pytest.param(2, marks=TWICE_MORE)])
def test_one_of_two_starts_goes_on(deployed_ground: Lab, turn: int) -> None:
    command: list[str | Path] = [
        ROOT / ".venv/bin/ansible-playbook",
        "deploy.yml",
        "-i",
        "inventories/local",
        "-l",
        "local",
    ]
    starts = [
        subprocess.Popen(
            [*command, "--tags", "verify"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    ended = {start.pid: (start.communicate()[0], start.returncode) for start in starts}

    assert sorted(code == 0 for _, code in ended.values()) == [False, True], ended
    winner = next(pid for pid, (_, code) in ended.items() if code == 0)
    verified = ended[winner][0]
    assert "요청한 단계만 실행: 인덱스 검증" in verified
    assert "계획된 인덱스 정확히 3개, 중복 0건" in verified
    assert "(1/7)" not in verified, "what was not asked for is not shown"
    (said,) = (" ".join(output.split()) for output, code in ended.values() if code != 0)
    ((run_id, who, started),) = deployed_ground.rows(
        'SELECT run_id, who, to_char(started_at, \'YYYY-MM-DD"T"HH24:MI:SS"Z"\') FROM at_most_one.run'
        " WHERE controller_pid = %s ORDER BY started_at DESC LIMIT 1",
        winner,
    )
    assert os.readlink(ROOT / "artifacts/local/latest") == run_id, "the start that was refused has moved nothing"
    here = re.escape(socket.gethostname())
    holds = (
        rf"실행 {run_id}에서 계획 .+ 잡고 있습니다: {who}, {started}부터\(0분 \d+초 전\), {here}에서\(pid {winner}\)"
    )
    assert re.search(holds, said), said
    assert "끝나지 않은 이 계획의 다른 실행이 없어야 합니다." in said
    assert f"그 실행을 기다리거나 {who}에게 문의하십시오" in said
    assert re.search(r"AMO-2206\b", said), said
    assert "Expected:" not in said
