"""The images and the Compose file of scripts/deploy: what the tools say of them, and that nothing is left open."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from backstop_process import REPOSITORY, BackstopProcess, free_port

DEPLOY = REPOSITORY / "scripts/deploy"
COMPOSE = DEPLOY / "compose/compose.yaml"
VARIABLES = dict.fromkeys(["PRIMARY_URL", "PRIMARY_API_KEY", "BACKSTOP_API_KEY", "LITELLM_MASTER_KEY"], "x")


def docker_compose(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["docker", "compose", "--file", str(COMPOSE), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False
    )


def needs_compose() -> None:
    if not shutil.which("docker") or docker_compose("version").returncode != 0:
        pytest.skip("Docker Compose is not installed")


def services(profile: str) -> dict[str, Any]:
    """What a profile starts, as Compose reads the file."""
    read = docker_compose("--profile", profile, "config", "--format", "json", **VARIABLES)
    assert (read.returncode, read.stderr) == (0, "")
    return json.loads(read.stdout)["services"]


def seconds(text: str) -> int:
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(\d+)s", text).groups()
    return 60 * int(minutes or 0) + int(rest)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_compose_understands_the_file_and_backstop_is_closed(profile: str) -> None:
    needs_compose()
    found = services(profile)
    assert set(found) == {f"backstop-{profile}", "litellm"}
    backstop, gateway = found[f"backstop-{profile}"], found["litellm"]
    assert "ports" not in backstop and list(backstop["networks"]) == ["inside"]
    assert backstop["read_only"] and all(volume["read_only"] for volume in backstop["volumes"])
    for service in found.values():
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
        assert service["healthcheck"]["test"][0] == "CMD"
    assert gateway["depends_on"][f"backstop-{profile}"]["condition"] == "service_healthy"
    [port] = gateway["ports"]
    assert port["host_ip"] == "127.0.0.1"
    [drain] = [word.split("=")[1] for word in backstop["command"] if word.startswith("--shutdown-timeout")]
    assert seconds(backstop["stop_grace_period"]) > seconds(drain)
    devices = backstop.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    assert bool(devices) == (profile == "gpu")


def test_compose_asks_for_what_it_cannot_know() -> None:
    needs_compose()
    for name in VARIABLES:
        others = {**VARIABLES, name: ""}
        refused = docker_compose("--profile", "cpu", "config", "--quiet", **others)
        assert refused.returncode != 0 and name in refused.stderr, name


def test_the_network_of_backstop_has_no_way_out() -> None:
    networks = yaml.safe_load(COMPOSE.read_text())["networks"]
    assert networks["inside"] == {"internal": True}


def test_the_gateway_is_the_one_that_is_tested_here() -> None:
    pinned = (REPOSITORY / "tests/python/requirements-litellm-itself.txt").read_text()
    [version] = re.findall(r"^litellm==(\S+)$", pinned, re.MULTILINE)
    assert f"litellm[proxy]=={version}" in (DEPLOY / "container/litellm.Containerfile").read_text()


def test_images_are_built_with_the_pinned_compiler_and_all_that_they_copy_is_let_in() -> None:
    text = (DEPLOY / "container/Containerfile").read_text()
    [channel] = re.findall(r'^channel = "(\d+\.\d+)', (REPOSITORY / "rust-toolchain.toml").read_text(), re.MULTILINE)
    assert f"FROM rust:{channel}-" in text
    let_in = (DEPLOY / "container/Containerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(?:--chmod=\S+ )?(.+) \S+$", text, re.MULTILINE):
        for path in line.split():
            assert (REPOSITORY / path).exists(), path
            assert f"!{path.split('/')[0]}" in let_in, path


@pytest.mark.parametrize("name", ["Containerfile", "litellm.Containerfile"])
def test_the_linter_of_container_files_has_nothing_to_say(name: str) -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not linter:
        pytest.skip("hadolint is not installed")
    linted = subprocess.run([linter, DEPLOY / "container" / name], capture_output=True, text=True, timeout=60, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_health_check_of_the_image_says_what_the_server_says(server: BackstopProcess) -> None:
    """The script runs here as it does in the image: all that it needs is bash."""

    def check(port: int, *arguments: str) -> int:
        environment = {"PATH": os.environ["PATH"], "BACKSTOP_PROBE_ADDRESS": f"0.0.0.0:{port}"}
        script = [DEPLOY / "container/healthcheck", *arguments]
        return subprocess.run(script, env=environment, capture_output=True, timeout=30, check=False).returncode

    assert check(server.port) == 0
    assert check(server.port, "/health") == 0
    assert check(server.port, "/no-such-route") != 0
    assert check(free_port()) != 0
