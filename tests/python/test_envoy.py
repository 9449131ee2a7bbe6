"""Envoy with an endpoint picker in front of two Backstops: what their metrics say is enough to keep requests from a busy one."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("grpc")
pytest.importorskip("envoy_data_plane")

from backstop_process import BackstopProcess, free_port
from endpoint_picker import DESTINATION, EndpointPicker, endpoint_picker
from requests_made import chat

ENVOY = shutil.which("envoy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(not ENVOY, reason="Envoy is not installed")
START_TIMEOUT_S = 60


def typed(name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/envoy.{name}", **fields}


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def configuration(port: int, picker_port: int) -> dict[str, Any]:
    """Every request's head goes to the picker, which says in a header where the request goes."""
    asking = typed(
        "extensions.filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={"envoy_grpc": {"cluster_name": "picker"}, "timeout": "5s"},
        message_timeout="5s",
        processing_mode={"request_header_mode": "SEND", "response_header_mode": "SKIP"},
    )
    routing = typed("extensions.filters.http.router.v3.Router")
    route = {"match": {"prefix": "/"}, "route": {"cluster": "picked", "timeout": "0s"}}
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="inference",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        http_filters=[
            {"name": "envoy.filters.http.ext_proc", "typed_config": asking},
            {"name": "envoy.filters.http.router", "typed_config": routing},
        ],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    http2 = typed("extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})
    picker = {
        "name": "picker",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "picker",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(picker_port)}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
    }
    picked = {
        "name": "picked",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": DESTINATION},
    }
    listener = {"name": "inference", "address": address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [picker, picked]}}


@contextmanager
def envoy(picker_port: int, directory: Path) -> Iterator[str]:
    """An Envoy that runs, by its address."""
    port = free_port()
    path = directory / "envoy.json"
    path.write_text(json.dumps(configuration(port, picker_port)))
    with (directory / "envoy.log").open("w") as log:
        command = [str(ENVOY), "--config-path", str(path), "--use-dynamic-base-id", "--concurrency", "1"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5)
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < deadline, (directory / "envoy.log").read_text()
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answered_by(url: str, servers: list[BackstopProcess], requests: int) -> list[int]:
    """How many of so many requests each server has answered."""
    before = [server.metrics().get("vllm:request_success_total", 0) for server in servers]
    for _ in range(requests):
        answer = httpx.post(f"{url}/v1/chat/completions", json=chat(max_tokens=4), timeout=120)
        assert answer.status_code == 200, answer.text
    after = [server.metrics().get("vllm:request_success_total", 0) for server in servers]
    return [int(new - old) for new, old in zip(after, before, strict=True)]


def test_requests_go_where_the_metrics_say_that_there_is_room(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    servers = [start() for _ in range(2)]
    for server in servers:
        server.wait_until_ready()
    endpoints = [f"127.0.0.1:{server.port}" for server in servers]
    with endpoint_picker(endpoints) as (picker, port), envoy(port, tmp_path) as url:
        wait_for(lambda: len(picker.loads) == 2)
        for busy, free in ((0, 1), (1, 0)):
            with servers[busy].occupied():
                wait_for(lambda: runs(picker, endpoints[busy]))
                assert answered_by(url, [servers[free]], 5) == [5]
            servers[busy].wait_until_idle()
            wait_for(lambda: not runs(picker, endpoints[busy]))

        # One that is gone is not chosen any more.
        servers[0].kill()
        wait_for(lambda: endpoints[0] not in picker.loads)
        assert answered_by(url, [servers[1]], 5) == [5]


def runs(picker: EndpointPicker, endpoint: str) -> bool:
    return endpoint in picker.loads and picker.loads[endpoint].running > 0
