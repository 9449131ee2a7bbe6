"""Plays systemd: a socket that a server is told of, and what it says there."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 120


class ServiceManager:
    """Every datagram is kept, in order, as a dictionary of its fields."""

    def __init__(self, socket: socket.socket):
        self.socket = socket
        self.told: list[dict[str, str]] = []

    def receive(self, timeout_s: float) -> dict[str, str] | None:
        """The next datagram, or `None` if none comes."""
        self.socket.settimeout(timeout_s)
        try:
            lines = self.socket.recv(1 << 16).decode().splitlines()
        except TimeoutError:
            return None
        self.told.append(dict(line.split("=", 1) for line in lines))
        return self.told[-1]

    def wait_for(self, *fields: str, timeout_s: float = START_TIMEOUT_S) -> dict[str, str]:
        """The next datagram that has all these lines, `NAME=VALUE` or the beginning of one."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            told = self.receive(left)
            lines = [f"{name}={value}" for name, value in (told or {}).items()]
            if all(any(line.startswith(field) for line in lines) for field in fields):
                return told
        raise AssertionError(f"{fields} was not told within {timeout_s} s: {self.told[-5:]}")


@contextmanager
def service_manager(address: str | Path) -> Iterator[ServiceManager]:
    """Listens at a path, or at a name that begins with `@`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address).replace("@", "\0", 1) if str(address).startswith("@") else str(address))
        yield ServiceManager(listening)
