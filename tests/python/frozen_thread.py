"""Stops one thread of a running process, as a driver that never returns would."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long
SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
# Waits for threads as well (__WALL).
ALL = 0x40000000


@contextmanager
def frozen_thread(process: int, name: str) -> Iterator[None]:
    """All other threads go on meanwhile."""
    threads = [path.parent for path in Path(f"/proc/{process}/task").glob("*/comm") if path.read_text().strip() == name]
    assert len(threads) == 1, f"threads of that name: {threads}"
    thread = int(threads[0].name)
    if LIBC.ptrace(SEIZE, thread, None, None) != 0:
        pytest.skip(f"threads cannot be traced here: {os.strerror(ctypes.get_errno())}")
    try:
        assert LIBC.ptrace(INTERRUPT, thread, None, None) == 0
        os.waitpid(thread, ALL)
        yield
    finally:
        LIBC.ptrace(DETACH, thread, None, None)
