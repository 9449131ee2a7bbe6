"""`backstop drill`, against the LiteLLM proxy and against the gateway that blog posts have."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from backstop_process import BINARY, REPOSITORY, BackstopProcess, free_port

pytest.importorskip("litellm", reason="the LiteLLM proxy has an environment of its own")

DRILL = BINARY.with_name("backstop-drill")
pytestmark = pytest.mark.skipif(not DRILL.is_file(), reason=f"{DRILL} does not exist: cargo build -p backstop-drill")

CONFIG = REPOSITORY / "scripts/gateways/litellm/config.yaml"
GATEWAYS = REPOSITORY / "scripts/gateways/python"
# How long a primary that hangs may keep clients waiting.
PRIMARY_TIMEOUT_S = 1
PASSED, FAILED = 0, 3
# A few requests are enough to see what becomes of them.
BRIEF = ["--rate", "5", "--before", "500ms", "--during", "1s", "--recovery-limit", "8s"]


class Drill:
    """One drill, and its report."""

    def __init__(self, directory: Path, *arguments: str, expected: int, environment: dict[str, str] | None = None):
        self.report_path = directory / "drill.json"
        self.page_path = directory / "drill.html"
        self.metrics_path = directory / "drill.prom"
        reports = ["--json", self.report_path, "--html", self.page_path, "--metrics-file", self.metrics_path]
        done = subprocess.run(
            [str(BINARY), "drill", *BRIEF, *map(str, reports), *arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == expected, done.stderr
        self.log = done.stderr
        self.report = json.loads(self.report_path.read_text())

    def failure(self, name: str) -> dict[str, Any]:
        return next(failure for failure in self.report["failures"] if failure["name"] == name)

    def verdicts(self) -> dict[str, str]:
        return {failure["name"]: failure["verdict"] for failure in self.report["failures"]}

    def advice(self) -> dict[str, list[str]]:
        return {advice["setting"]: advice["failures"] for advice in self.report["advice"]}


def litellm(tmp_path: Path, server: BackstopProcess, change: Callable[[dict[str, Any]], None]) -> tuple[list[str], dict[str, str]]:
    """The shipped configuration with changes, and the environment that it reads."""
    config = yaml.safe_load(CONFIG.read_text())
    primary = config["model_list"][0]["litellm_params"]
    primary |= {"timeout": PRIMARY_TIMEOUT_S, "stream_timeout": PRIMARY_TIMEOUT_S}
    change(config)
    path = tmp_path / "litellm.yaml"
    path.write_text(yaml.safe_dump(config))
    program = Path(sys.executable).with_name("litellm")
    environment = {"BACKSTOP_URL": server.base_url, "BACKSTOP_API_KEY": "unused", "NO_PROXY": "127.0.0.1"}
    return ["--gateway-config", str(path), "--gateway-program", str(program)], environment


def test_litellm_with_the_shipped_configuration_passes(tmp_path: Path, server: BackstopProcess) -> None:
    arguments, environment = litellm(tmp_path, server, lambda config: None)
    only = "connection-refused,tls-failure,status-401,context-overflow,hang-before-headers,cut-in-text"
    drill = Drill(tmp_path, *arguments, "--only", only, expected=PASSED, environment=environment)
    assert set(drill.verdicts().values()) == {"passed"}, drill.log
    told = httpx.get(f"{server.root}/health").headers["x-backstop-model"]
    assert drill.report["fallback"]["model"] == told
    for failure in drill.report["failures"]:
        during = failure["during"]
        assert during["requests"] > 0 and during["lost"] == 0
        assert during["from_fallback"] + during["continued"] == during["requests"], failure["name"]
        assert failure["recovery_s"] is not None
    # Streams that broke off were finished, and answers in one piece came from Backstop.
    assert drill.failure("cut-in-text")["during"]["continued"] > 0
    assert drill.failure("hang-before-headers")["during"]["fallback_first_token_s"]["p50"] >= PRIMARY_TIMEOUT_S
    passed = [line for line in drill.metrics_path.read_text().splitlines() if "last_passed_timestamp_seconds " in line]
    assert abs(float(passed[-1].split()[1]) - time.time()) < 60
    page = drill.page_path.read_text()
    assert page.count("<svg") == len(drill.report["failures"])
    assert not any(load in page for load in ("src=", 'href="http', "url(", "@import")), "it loads nothing from anywhere"
    assert "default-src 'none'" in page


def test_litellm_without_what_the_shipped_configuration_sets_gets_advice(
    tmp_path: Path, server: BackstopProcess
) -> None:
    def forget(config: dict[str, Any]) -> None:
        primary = config["model_list"][0]["litellm_params"]
        primary |= {"timeout": 60, "stream_timeout": 60}
        router = config["router_settings"]
        router |= {"num_retries": 2, "enable_mid_stream_fallback_continuation": False}
        router["content_policy_fallbacks"] = [{"embeddings-primary": ["embeddings-backstop"]}]

    arguments, environment = litellm(tmp_path, server, forget)
    only = "status-503,content-policy,hang-after-headers,cut-in-text"
    patience = ["--request-timeout", "10s"]
    drill = Drill(tmp_path, *arguments, *patience, "--only", only, expected=FAILED, environment=environment)
    advice = drill.advice()
    assert advice["stream_timeout"] == advice["timeout"] == ["hang-after-headers"]
    assert "content-policy" in advice["content_policy_fallbacks"]
    assert "cut-in-text" in advice["enable_mid_stream_fallback_continuation"]
    assert "status-503" in advice["num_retries"]
    assert "last_passed" not in drill.metrics_path.read_text(), "there was none"


@contextmanager
def blog_gateway(server: BackstopProcess, stand_in_port: int, catches: str) -> Iterator[str]:
    port = free_port()
    environment = {
        **os.environ,
        "PRIMARY_URL": f"http://127.0.0.1:{stand_in_port}/v1",
        "BACKSTOP_URL": server.base_url,
        "GATEWAY_TIMEOUT_S": str(PRIMARY_TIMEOUT_S),
        "GATEWAY_CATCHES": catches,
    }
    command = [sys.executable, "-m", "uvicorn", "blog_gateway:app", "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command, cwd=GATEWAYS, env=environment, stdin=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.parametrize("catches", ["403,451", "all"])
def test_the_gateway_of_blog_posts_survives_what_it_catches(tmp_path: Path, server: BackstopProcess, catches: str) -> None:
    stand_in = free_port()
    caught = ["connection-refused", "status-403", "status-451", "hang-before-headers"]
    missed = ["status-401", "status-429", "status-503"]
    with blog_gateway(server, stand_in, catches) as url:
        drill = Drill(
            tmp_path,
            *["--gateway-url", url, "--model", "any", "--fallback-url", server.base_url],
            *["--stand-in", f"127.0.0.1:{stand_in}", "--only", ",".join([*caught, *missed, "tls-failure", "cut-in-text"])],
            expected=FAILED,
        )
    verdicts = drill.verdicts()
    assert {verdicts[name] for name in caught} == {"passed"}
    assert {verdicts[name] for name in missed} == {"passed" if catches == "all" else "failed"}
    assert verdicts["tls-failure"] == "not rehearsed"
    assert verdicts["cut-in-text"] == "failed"


def test_a_gateway_that_does_not_ask_the_stand_in_is_not_drilled(tmp_path: Path, server: BackstopProcess) -> None:
    done = subprocess.run(
        [str(BINARY), "drill", "--gateway-url", server.root, "--model", "demo", "--stand-in", "127.0.0.1:0", "--warm-up", "1s"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "primary must be http://127.0.0.1:" in done.stderr
