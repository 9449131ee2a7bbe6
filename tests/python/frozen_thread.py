"""Stops one thread of a running process, as a driver that never returns would."""

import ctypes
import os
import time
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


class FrozenThread:
    """A thread that does not move."""

    def __init__(self, thread: int):
        self.thread = thread
        self.has_ended = False

    def wait_for_end(self, timeout_s: float) -> None:
        """Waits until its process has ended it. Whoever froze it must see that before the process can be waited for."""
        deadline = time.monotonic() + timeout_s
        while not self.has_ended:
            assert time.monotonic() < deadline, f"the thread is still there after {timeout_s} s"
            time.sleep(0.02)
            changed, status = os.waitpid(self.thread, ALL | os.WNOHANG)
            self.has_ended = changed != 0 and (os.WIFEXITED(status) or os.WIFSIGNALED(status))


@contextmanager
def frozen_thread(process: int, name: str) -> Iterator[FrozenThread]:
    """All other threads go on meanwhile."""
    threads = [path.parent for path in Path(f"/proc/{process}/task").glob("*/comm") if path.read_text().strip() == name]
    assert len(threads) == 1, f"threads of that name: {threads}"
    frozen = FrozenThread(int(threads[0].name))
    if LIBC.ptrace(SEIZE, frozen.thread, None, None) != 0:
        pytest.skip(f"threads cannot be traced here: {os.strerror(ctypes.get_errno())}")
    try:
        assert LIBC.ptrace(INTERRUPT, frozen.thread, None, None) == 0
        os.waitpid(frozen.thread, ALL)
        yield frozen
    finally:
        if not frozen.has_ended:
            LIBC.ptrace(DETACH, frozen.thread, None, None)
