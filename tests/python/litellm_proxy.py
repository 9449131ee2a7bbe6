"""A LiteLLM proxy as its own process, with the configuration that scripts/gateways/litellm ships."""

import copy
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import yaml
from openai import OpenAI

from backstop_process import REPOSITORY, REQUEST_TIMEOUT_S, free_port
from fake_primary import FakePrimary

SHIPPED_CONFIG = REPOSITORY / "scripts/gateways/litellm/config.yaml"
MASTER_KEY = "sk-test-0123456789abcdef0123456789abcdef"
PREFIXES = ["openai", "hosted_vllm"]
MODES = ["whole", "streamed"]
# Nothing listens there.
DEAD = "http://127.0.0.1:9/v1"
STATUSES = [401, 403, 404, 408, 413, 429, 451, 500, 502, 503, 529]
FAULTS = [
    *["refused", "hang", "cut-before", "cut-after", "context", "policy", "busy-30"],
    *[f"status-{status}" for status in STATUSES],
]
LISTS = ["fallbacks", "context_window_fallbacks", "content_policy_fallbacks"]
# Faults whose kind of error has a list of its own.
FORGOTTEN = {"context": "context_window_fallbacks", "policy": "content_policy_fallbacks"}
START_TIMEOUT_S = 180
# How long the fake primary may hang.
PRIMARY_TIMEOUT_S = 2


class ProxyConfig:
    """The shipped file, of which every group stands there once for each provider prefix and each fault."""

    def __init__(self) -> None:
        self.shipped = yaml.safe_load(SHIPPED_CONFIG.read_text())
        groups = {entry["model_name"]: entry for entry in self.shipped["model_list"]}
        self.primary, self.backstop = groups.pop("primary"), groups.pop("backstop")
        self.embeddings = [groups.pop("embeddings-primary"), groups.pop("embeddings-backstop")]
        assert not groups
        self.config = {**copy.deepcopy(self.shipped), "model_list": []}
        fallbacks = [{"primary": ["backstop"]}, {"embeddings-primary": ["embeddings-backstop"]}]
        for name in LISTS:
            assert self.config["router_settings"][name] == fallbacks
            self.config["router_settings"][name] = []

    def add_cases(self, backstop_url: str, primary: FakePrimary) -> None:
        """Each case has a primary of its own, so that no cool-down keeps another case from it."""
        for prefix in PREFIXES:
            self.add_backstop(f"backstop-{prefix}", prefix, backstop_url)
            for fault, mode in product(FAULTS, MODES):
                name = f"{fault}-{mode}-{prefix}"
                url = DEAD if fault == "refused" else primary.url(fault, name)
                self.add_primary(name, prefix, url, f"backstop-{prefix}")
            for fault, forgetful in FORGOTTEN.items():
                name = f"{fault}-forgotten-{prefix}"
                lists = [kind for kind in LISTS if kind != forgetful]
                self.add_primary(name, prefix, primary.url(fault, name), f"backstop-{prefix}", lists)

    def add_special_servers(self, backstop_url: str, urls: dict[str, str]) -> None:
        """Groups of one deployment each, as the last link is, without a fallback."""
        for prefix in PREFIXES:
            for name, url in urls.items():
                self.add_backstop(f"{name}-{prefix}", prefix, url)
            self.add_backstop(f"unheard-of-{prefix}", prefix, backstop_url, model=f"{prefix}/unheard-of")

    def add_embeddings(self, name: str, primary_url: str, backstop_url: str, model: str) -> None:
        """The shipped groups for embeddings, of which Backstop serves this model."""
        primary, backstop = self.embeddings
        self.add(primary, name, "hosted_vllm/fake", primary_url, {"timeout": PRIMARY_TIMEOUT_S})
        self.add(backstop, f"{name}-backstop", f"hosted_vllm/{model}", backstop_url, {})
        for kind in LISTS:
            self.config["router_settings"][kind].append({name: [f"{name}-backstop"]})

    def add_backstop(self, name: str, prefix: str, url: str, **parameters: Any) -> None:
        model = self.backstop["litellm_params"]["model"].split("/")[1]
        self.add(self.backstop, name, f"{prefix}/{model}", url, parameters)

    def add_primary(self, name: str, prefix: str, url: str, fallback: str, lists: list[str] | None = None) -> None:
        parameters = {"timeout": PRIMARY_TIMEOUT_S, "stream_timeout": PRIMARY_TIMEOUT_S}
        self.add(self.primary, name, f"{prefix}/fake", url, parameters)
        for kind in lists or LISTS:
            self.config["router_settings"][kind].append({name: [fallback]})

    def add(self, shipped: dict[str, Any], name: str, model: str, url: str, parameters: dict[str, Any]) -> None:
        entry = copy.deepcopy(shipped)
        entry["model_name"] = name
        entry["litellm_params"] |= {"model": model, "api_base": url, "api_key": "unused", **parameters}
        self.config["model_list"].append(entry)


class LiteLLMProxy:
    def __init__(self, config: ProxyConfig, directory: Path):
        self.port = free_port()
        path = directory / "config.yaml"
        path.write_text(yaml.safe_dump(config.config))
        self.log_file = tempfile.NamedTemporaryFile(prefix="litellm-test-", suffix=".log")
        environment = {
            **os.environ,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MASTER_KEY": MASTER_KEY,
            # A name that resolves, or a proxy that answers, would hide an outbound connection.
            **{name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")},
            "NO_PROXY": "127.0.0.1",
        }
        command = [str(Path(sys.executable).with_name("litellm")), "--config", str(path)]
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log_file,
            stderr=self.log_file,
        )

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {MASTER_KEY}"}

    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.root}/v1", api_key=MASTER_KEY, max_retries=0, timeout=REQUEST_TIMEOUT_S)

    def log(self) -> str:
        return Path(self.log_file.name).read_text(errors="replace")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the proxy ended:\n{self.log()}"
            try:
                if httpx.get(f"{self.root}/health/liveliness", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"not ready after {START_TIMEOUT_S} s:\n{self.log()}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def litellm_proxy(config: ProxyConfig, directory: Path) -> Iterator[LiteLLMProxy]:
    proxy = LiteLLMProxy(config, directory)
    try:
        proxy.wait_until_ready()
        yield proxy
    finally:
        proxy.stop()
