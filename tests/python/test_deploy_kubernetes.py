"""The overlays of scripts/deploy/kubernetes, as Kustomize builds them."""

import re
import shutil
import subprocess
import tomllib
from functools import cache
from typing import Any

import pytest
import yaml

from backstop_process import REPOSITORY

KUBERNETES = REPOSITORY / "scripts/deploy/kubernetes"
OVERLAYS = ["cpu", "h100"]
# The oldest that has all of the fields that are used: the pause before a pod's end is stable from there on.
VERSION = "1.34"
# What is defined by others; scripts/deploy/README.md says against which of their definitions it was checked.
DEFINED_ELSEWHERE = {"HTTPRoute", "InferencePool", "ScaledObject", "ServiceMonitor"}


@cache
def built(overlay: str) -> tuple[dict[str, Any], ...]:
    path = str(KUBERNETES / "overlays" / overlay)
    if shutil.which("kustomize"):
        command = ["kustomize", "build", path]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize", path]
    else:
        pytest.skip("neither kustomize nor kubectl is installed")
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return tuple(yaml.safe_load_all(text))


def only(overlay: str, kind: str) -> dict[str, Any]:
    [resource] = [resource for resource in built(overlay) if resource["kind"] == kind]
    return resource


def pod(overlay: str) -> dict[str, Any]:
    return only(overlay, "Deployment")["spec"]["template"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_resources_are_valid(overlay: str) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for resource in built(overlay):
        if resource["kind"] not in DEFINED_ELSEWHERE:
            validate.validate(resource, VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_that_ends_has_the_time_that_it_takes(overlay: str) -> None:
    spec = pod(overlay)["spec"]
    [container] = spec["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    settings = tomllib.loads(only(overlay, "ConfigMap")["data"]["backstop.toml"])
    drain = int(re.fullmatch(r"(\d+)s", settings["shutdown-timeout"])[1])
    assert pause + drain < spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_no_privilege_and_writes_nowhere(overlay: str) -> None:
    spec = pod(overlay)["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_that_selects_pods_selects_these_and_no_others(overlay: str) -> None:
    labels = pod(overlay)["metadata"]["labels"].items()
    own = {"app.kubernetes.io/name": "backstop"}
    selectors = {
        "Deployment": lambda spec: spec["selector"]["matchLabels"],
        "Service": lambda spec: spec["selector"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        "InferencePool": lambda spec: spec["selector"]["matchLabels"],
    }
    found = [resource for resource in built(overlay) if resource["kind"] in selectors]
    assert len(found) == len(selectors) - (overlay == "cpu")
    for resource in found:
        selector = selectors[resource["kind"]](resource["spec"])
        assert selector.items() <= labels and selector == own, resource["kind"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_leaves_a_pod(overlay: str) -> None:
    policy = only(overlay, "NetworkPolicy")["spec"]
    assert "Egress" in policy["policyTypes"] and policy.get("egress", []) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_is_there_on_the_port_of_their_own(overlay: str) -> None:
    [container] = pod(overlay)["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8000, "probes": 8001}
    routes = (REPOSITORY / "crates/server/src/routes.rs").read_text()
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[kind]["httpGet"]
        assert asked["port"] == "probes" and f'"{asked["path"]}"' in routes
        # One that is answered late is not one that failed.
        assert container[kind]["timeoutSeconds"] > 1


def test_the_scaler_asks_for_a_metric_that_there_is_and_its_number_is_its_own() -> None:
    scaler = only("h100", "ScaledObject")["spec"]
    [trigger] = scaler["triggers"]
    [metric] = re.findall(r"vllm:\w+", trigger["metadata"]["query"])
    sources = (REPOSITORY / "crates/server/src").rglob("*.rs")
    assert any(metric in source.read_text() for source in sources)
    assert scaler["minReplicaCount"] >= 2 and scaler["fallback"]["replicas"] >= 2
    assert scaler["scaleTargetRef"]["name"] == only("h100", "Deployment")["metadata"]["name"]
    assert "replicas" not in only("h100", "Deployment")["spec"]
    assert only("cpu", "Deployment")["spec"]["replicas"] >= 2


def test_the_monitor_watches_a_port_that_the_service_has_and_the_scaler_reads_its_job() -> None:
    [endpoint] = only("h100", "ServiceMonitor")["spec"]["endpoints"]
    service = only("h100", "Service")
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    # The operator calls the job as the Service is called.
    query = only("h100", "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    assert f'job="{service["metadata"]["name"]}"' in query


def test_a_route_leads_to_the_pool_and_the_pool_to_the_port() -> None:
    pool, route = only("h100", "InferencePool"), only("h100", "HTTPRoute")
    [rule] = route["spec"]["rules"]
    [backend] = rule["backendRefs"]
    assert (backend["group"], backend["kind"], backend["name"]) == (
        pool["apiVersion"].split("/")[0],
        pool["kind"],
        pool["metadata"]["name"],
    )
    [container] = pod("h100")["spec"]["containers"]
    assert pool["spec"]["targetPorts"] == [{"number": container["ports"][0]["containerPort"]}]
