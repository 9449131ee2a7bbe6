"""Fixtures: one server that most tests share, and a factory for servers with settings of their own."""

import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import httpx
import pytest
from openai import OpenAI

from backstop_process import BINARY, REQUEST_TIMEOUT_S, BackstopProcess

if TYPE_CHECKING:
    from fake_primary import FakePrimary
    from litellm_proxy import LiteLLMProxy


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


@pytest.fixture
def batch_invariant(server: BackstopProcess) -> None:
    """For tests that make a request twice and compare all of both answers, sampled text included."""
    if not httpx.get(f"{server.root}/version").json()["batch_invariant"]:
        pytest.skip("this device does not promise the same answer beside other sequences")


@pytest.fixture(scope="session")
def primary() -> Iterator["FakePrimary"]:
    """The provider in front of Backstop, which fails on command."""
    from fake_primary import fake_primary

    with fake_primary() as running:
        yield running


@pytest.fixture(scope="session")
def special() -> Iterator[dict[str, BackstopProcess]]:
    """Servers with settings of their own that stand behind the LiteLLM proxy: with keys, small, and to be stopped."""
    keys = tempfile.NamedTemporaryFile("w", prefix="backstop-test-keys-")
    keys.write("the-right-key\n")
    keys.flush()
    processes = {
        "keyed": BackstopProcess("--api-key-file", keys.name),
        "small": BackstopProcess("--max-num-seqs", "1", "--max-num-queued-reqs", "1"),
        "draining": BackstopProcess("--shutdown-timeout", "55s"),
    }
    try:
        for process in processes.values():
            process.wait_until_ready()
        yield processes
        for process in processes.values():
            if process.is_running():
                process.stop()
    finally:
        for process in processes.values():
            process.kill()


@pytest.fixture(scope="session")
def proxy(
    server: BackstopProcess,
    special: dict[str, BackstopProcess],
    primary: "FakePrimary",
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator["LiteLLMProxy"]:
    """The LiteLLM proxy, which takes long to start and is shared."""
    from litellm_proxy import ProxyConfig, litellm_proxy

    config = ProxyConfig()
    config.add_cases(server.base_url, primary)
    config.add_special_servers(server.base_url, {name: process.base_url for name, process in special.items()})
    with litellm_proxy(config, tmp_path_factory.mktemp("litellm")) as running:
        yield running


@pytest.fixture
def through(proxy: "LiteLLMProxy") -> Iterator[OpenAI]:
    """The vendor's client, whose requests go through the LiteLLM proxy."""
    with proxy.client() as client:
        yield client


@pytest.fixture
def scripted() -> Iterator[Callable[..., str]]:
    """Starts servers whose model gives these answers, one after the other; returns their address."""
    from scripted_server import scripted_servers

    with scripted_servers() as start:
        yield start
