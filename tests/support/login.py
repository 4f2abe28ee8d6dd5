"""What a login may bring along."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """Files are created with this umask while the block runs."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
