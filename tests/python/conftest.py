"""Fixtures: one server that most tests share, and a factory for servers with settings of their own."""

from collections.abc import Callable, Iterator

import pytest
from openai import OpenAI

from backstop_process import BINARY, REQUEST_TIMEOUT_S, BackstopProcess


def pytest_sessionstart() -> None:
    if not BINARY.is_file():
        pytest.exit(f"{BINARY} does not exist: build it with 'cargo build -p backstop'", returncode=2)


@pytest.fixture(scope="session")
def server() -> Iterator[BackstopProcess]:
    """The shared server, with default settings. Tests leave it idle."""
    process = BackstopProcess()
    try:
        yield process.wait_until_ready()
        process.wait_until_idle()
        process.stop()
    finally:
        process.kill()


@pytest.fixture
def start() -> Iterator[Callable[..., BackstopProcess]]:
    """Starts servers that end with the test; those still running then must end cleanly."""
    processes: list[BackstopProcess] = []

    def start_one(*arguments: str, **options: str) -> BackstopProcess:
        processes.append(BackstopProcess(*arguments, **options))
        return processes[-1]

    try:
        yield start_one
        for process in processes:
            if process.is_running():
                process.stop()
    finally:
        for process in processes:
            process.kill()


def sdk(server: BackstopProcess, api_key: str = "unused") -> OpenAI:
    """The vendor's client, without the retries that would hide errors."""
    return OpenAI(base_url=server.base_url, api_key=api_key, max_retries=0, timeout=REQUEST_TIMEOUT_S)


@pytest.fixture
def client(server: BackstopProcess) -> Iterator[OpenAI]:
    with sdk(server) as client:
        yield client
