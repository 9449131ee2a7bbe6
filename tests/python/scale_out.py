#!/usr/bin/env python3
"""Two Backstops behind the LiteLLM proxy, with the configuration that scripts/gateways/litellm ships for them; one of them is
killed under load, and started again.

    .venv/bin/python tests/python/scale_out.py --requests 200 --concurrency 8 --out FILE.json
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from openai import OpenAI, OpenAIError, Stream
from openai.types.chat import ChatCompletionChunk

from backstop_process import REPOSITORY, BackstopProcess, free_port
from litellm_proxy import LiteLLMProxy

SHIPPED_CONFIG = REPOSITORY / "scripts/gateways/litellm/two_servers.yaml"
TOKENS = 48
# Of streams that are to be in the middle of their text when a server is killed.
LONG_TOKENS = 1500
STREAMS_MAX = 16
QUESTION = {"role": "user", "content": "Write a function that adds two numbers."}
BODY: dict[str, Any] = {
    "model": "backstop",
    "messages": [QUESTION],
    "temperature": 0,
    "max_tokens": TOKENS,
    "extra_body": {"ignore_eos": True},
}
LONG_BODY = {**BODY, "max_tokens": LONG_TOKENS}


class TwoServers:
    """Each keeps its port when it is started again."""

    def __init__(self) -> None:
        self.ports = [free_port(), free_port()]
        self.servers = [self.start(port) for port in self.ports]

    @staticmethod
    def start(port: int) -> BackstopProcess:
        return BackstopProcess(port=port)

    def served(self) -> list[float]:
        """Answers that each has given since it was started."""
        return [server.metrics().get("vllm:request_success_total", 0) for server in self.servers]

    def kill_first(self) -> None:
        self.servers[0].kill()

    def restart_first(self) -> None:
        self.servers[0] = self.start(self.ports[0]).wait_until_ready()


class Config:
    """The shipped file, with addresses in place of its variables."""

    def __init__(self, servers: TwoServers) -> None:
        self.config = yaml.safe_load(SHIPPED_CONFIG.read_text())
        urls = {f"os.environ/BACKSTOP_URL_{number}": server.base_url for number, server in enumerate(servers.servers, 1)}
        for deployment in self.config["model_list"]:
            parameters = deployment["litellm_params"]
            deployment["litellm_params"] = {**parameters, "api_base": urls[parameters["api_base"]], "api_key": "unused"}


@contextmanager
def two_servers_behind_litellm(directory: Path) -> Iterator[tuple[TwoServers, LiteLLMProxy]]:
    servers = TwoServers()
    try:
        for server in servers.servers:
            server.wait_until_ready()
        proxy = LiteLLMProxy(Config(servers), directory)
        try:
            proxy.wait_until_ready()
            yield servers, proxy
        finally:
            proxy.stop()
        for server in servers.servers:
            if server.is_running():
                server.stop()
    finally:
        for server in servers.servers:
            server.kill()


@dataclass(frozen=True)
class Outcome:
    seconds: float
    text: str
    # Why the client got no whole answer.
    error: str | None = None


def ask(client: OpenAI) -> Outcome:
    """One request for an answer in one piece."""
    started = time.monotonic()
    try:
        [choice] = client.chat.completions.create(**BODY).choices
    except OpenAIError as failure:
        return Outcome(time.monotonic() - started, "", described(failure))
    error = None if choice.finish_reason == "length" else f"the answer ended with {choice.finish_reason}"
    return Outcome(time.monotonic() - started, choice.message.content or "", error)


def described(failure: Exception) -> str:
    return f"{type(failure).__name__}: {failure}"[:300]


def load(client: OpenAI, requests: int, concurrency: int, progress: Callable[[int], None] = lambda _: None) -> list[Outcome]:
    """So many requests; `progress` is told after each how many have ended."""
    with ThreadPoolExecutor(concurrency) as threads:
        asked = [threads.submit(ask, client) for _ in range(requests)]
        outcomes = []
        for done in as_completed(asked):
            outcomes.append(done.result())
            progress(len(outcomes))
    return outcomes


def broken_streams(client: OpenAI, servers: TwoServers) -> tuple[list[Outcome], float]:
    """Opens streams until the first server is in the middle of one, kills it, and reads all to their ends. Says as well how
    many it was in the middle of."""
    started = time.monotonic()
    opened: list[tuple[Stream[ChatCompletionChunk], str]] = []
    running = 0.0
    while running == 0 and len(opened) < STREAMS_MAX:
        stream, text = client.chat.completions.create(**LONG_BODY, stream=True), ""
        while not text:
            text = text_of(next(stream))[0]
        opened.append((stream, text))
        running = servers.servers[0].metrics()["vllm:num_requests_running"]
    servers.kill_first()
    return [rest_of(stream, text, started) for stream, text in opened], running


def text_of(chunk: ChatCompletionChunk) -> tuple[str, str | None]:
    """What a part of a stream adds, and why the answer ended if it did."""
    texts = [choice.delta.content or "" for choice in chunk.choices]
    reasons = [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
    return "".join(texts), (reasons or [None])[0]


def rest_of(stream: Stream[ChatCompletionChunk], text: str, started: float) -> Outcome:
    """Reads a stream of which `text` has been read."""
    reason = None
    try:
        for chunk in stream:
            more, ended = text_of(chunk)
            text, reason = text + more, ended or reason
        error = None if reason == "length" else f"the answer ended with {reason}"
    except (OpenAIError, httpx.TransportError) as failure:
        error = described(failure)
    return Outcome(time.monotonic() - started, text, error)


def summary(outcomes: list[Outcome], expected: str) -> dict[str, Any]:
    seconds = sorted(outcome.seconds for outcome in outcomes)
    return {
        "requests": len(outcomes),
        "lost": sum(outcome.error is not None for outcome in outcomes),
        "errors": sorted({outcome.error for outcome in outcomes if outcome.error}),
        "other text": sum(outcome.error is None and outcome.text != expected for outcome in outcomes),
        "median s": round(statistics.median(seconds), 3),
        "longest s": round(seconds[-1], 3),
    }


def run(servers: TwoServers, proxy: LiteLLMProxy, requests: int, concurrency: int) -> dict[str, Any]:
    """Four rounds: with both, with one that is killed when a quarter has been answered, with both again, and with streams of
    which the killed server is in the middle of one."""
    with proxy.client() as client:
        expected = ask(client).text
        report: dict[str, Any] = {}
        before = servers.served()
        both = load(client, requests, concurrency)
        shares = [after - old for after, old in zip(servers.served(), before, strict=True)]
        report["both"] = {**summary(both, expected), "answered by": shares}

        def kill(ended: int) -> None:
            if ended == requests // 4:
                servers.kill_first()

        report["one is killed"] = summary(load(client, requests, concurrency, kill), expected)

        servers.restart_first()
        before = servers.served()
        again = load(client, requests, concurrency)
        shares = [after - old for after, old in zip(servers.served(), before, strict=True)]
        report["both again"] = {**summary(again, expected), "answered by": shares}

        whole = client.chat.completions.create(**LONG_BODY).choices[0].message.content or ""
        streams, broken = broken_streams(client, servers)
        report["in the middle of streams"] = {**summary(streams, whole), "broken off": broken}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="in each round")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, two_servers_behind_litellm(Path(directory)) as (servers, proxy):
        report = run(servers, proxy, arguments.requests, arguments.concurrency)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
