"""What a process of PM2's list is found to be, by the kernel's own account of this very process."""

from __future__ import annotations

import os
from dataclasses import replace

from at_most_one.pm2 import reload
from at_most_one.pm2.client import Instance

ONE = Instance(0, os.getpid(), "online", 7, "cluster_mode", "/", "s", "out", "err", 0, None, None)


def test_an_instance_that_was_restarted_meanwhile_has_died_and_one_whose_restarts_were_reset_has_not() -> None:
    done = [(replace(ONE, pid=1, restarts=6), ONE)]
    assert reload._died_meanwhile(done, [ONE]) is None
    assert reload._died_meanwhile(done, [replace(ONE, restarts=0)]) is None, "pm2 reset"
    for now in ([replace(ONE, restarts=8)], [replace(ONE, restarts=0, pid=1)], []):
        found = reload._died_meanwhile(done, now)
        assert found is not None
        assert found[1].cause == "crashed"
