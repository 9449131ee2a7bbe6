"""The settings and the command lines of scripts/deploy: the program takes all of them, and serves with those that it can."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from backstop_process import BINARY, REPOSITORY, BackstopProcess
from requests_made import chat

def settings_of(name: str, directory: Path) -> Path:
    """A file of settings with its keys elsewhere, and its ports free."""
    text = (REPOSITORY / name).read_text()
    assert "/etc/backstop/keys/api-keys" in text
    (directory / "keys").write_text("the-right-key\n")
    os.chmod(directory / "keys", 0o600)
    lines = text.replace("/etc/backstop/keys/api-keys", str(directory / "keys")).splitlines()
    path = directory / "backstop.toml"
    path.write_text("\n".join(line for line in lines if not line.startswith(("port", "host", "probe-address"))))
    return path


@pytest.mark.parametrize("name", ["scripts/deploy/systemd/backstop.toml", "scripts/deploy/kubernetes/base/backstop.toml"])
def test_a_server_starts_with_the_settings(start: Callable[..., BackstopProcess], tmp_path: Path, name: str) -> None:
    server = start("--config", str(settings_of(name, tmp_path)), model=None).wait_until_ready()
    body = {**chat(), "model": "what-the-primary-was-asked-for"}
    url = f"{server.base_url}/chat/completions"
    assert httpx.post(url, json=body, timeout=60).status_code == 401
    answer = httpx.post(url, json=body, headers={"authorization": "Bearer the-right-key"}, timeout=60)
    assert answer.status_code == 200, answer.text


def test_a_card_is_asked_for_by_settings_that_exist(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    """There are no weights and no card, so the start ends at the first of them, and not before."""
    settings = settings_of("scripts/deploy/kubernetes/overlays/h100/backstop.toml", tmp_path)
    server = start("--config", str(settings), model=None)
    assert server.wait() == 1, server.log()
    assert "listening on" in server.log() and "north-mini-code-fp8" in server.log(), server.log()


def command_lines() -> dict[str, list[str]]:
    """What comes behind `backstop` in each file that starts it."""
    deploy = REPOSITORY / "scripts/deploy"
    [unit] = re.findall(r"^ExecStart=/usr/local/bin/backstop (.+)$", (deploy / "systemd/backstop.service").read_text(), re.M)
    compose = yaml.safe_load((deploy / "compose/compose.yaml").read_text())["x-backstop"]["command"]
    deployment = yaml.safe_load((deploy / "kubernetes/base/deployment.yaml").read_text())
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return {"systemd": unit.split(), "compose": compose, "kubernetes": container["args"]}


@pytest.mark.parametrize("name", ["systemd", "compose", "kubernetes"])
def test_every_command_line_is_understood(name: str) -> None:
    """A command line that is wrong ends with 2. These end with 1, as the file that they name is not here."""
    arguments = [argument.replace("${MODEL:-demo}", "demo") for argument in command_lines()[name]]
    [file] = [argument for argument in arguments if re.search(r"(^|=)/", argument)]
    started = subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False)
    assert started.returncode == 1, started.stderr
    assert file.split("=")[-1] in started.stderr, started.stderr
