"""The dashboard and the alerts of `scripts/deploy` ask for metrics that there are, and say what to do."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from backstop_process import REPOSITORY, BackstopProcess, free_port
from requests_made import chat

DEPLOY = REPOSITORY / "scripts/deploy"
RULES = DEPLOY / "prometheus/rules.yml"
RULES_TEST = DEPLOY / "prometheus/rules_test.yml"
DASHBOARD = DEPLOY / "grafana/backstop.json"
KEY = "prometheus-key"
PATIENCE_S = 60

# Those of others, and of what the test has not switched on.
OF_PROMETHEUS = {"up", "ALERTS"}
OF_TLS = {"backstop:certificate_expiry_timestamp_seconds"}
OF_BACKSTOP_DRILL = {"backstop_drill_last_passed_timestamp_seconds"}

NAME = re.compile(r"\b(?:vllm:|backstop:|backstop_|process_)[a-z0-9_:]+|\bup\b")

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) is not installed")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return json.loads(DASHBOARD.read_text())["panels"]


def dashboard_queries() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", []))
    document = json.loads(DASHBOARD.read_text())
    yield from (annotation["expr"] for annotation in document["annotations"]["list"])
    yield from (variable["query"]["query"] for variable in document["templating"]["list"] if variable["type"] == "query")


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=60)


@pytest.fixture
def used(start: Callable[..., BackstopProcess], tmp_path: Path) -> BackstopProcess:
    """A server on which everything has happened that makes a metric appear."""
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY} may-see-all-keys name=prometheus\n")
    keys.chmod(0o600)
    (tmp_path / "audit").mkdir()
    narrow = ("--max-num-seqs", "1", "--max-num-queued-reqs", "1", "--queue-timeout", "1s", "--response-keep-alive", "100ms")
    server = start("--api-key-file", str(keys), "--audit-log", str(tmp_path / "audit/log"), *narrow).wait_until_ready()
    client = httpx.Client(base_url=server.root, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
    # One runs, one waits until it has waited too long and fails behind its 200, and others are refused.
    running = {**chat(max_tokens=4000), "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=running) as stream:
        pieces = stream.iter_bytes()
        next(pieces)
        late = client.post("/v1/chat/completions", json=chat())
        assert late.status_code == 200 and late.json()["error"]["code"] == "deadline_exceeded", late.text
        refused = client.post("/v1/chat/completions", json={**chat(), "n": 4})
        assert refused.status_code in (200, 429), refused.text
    assert client.post("/v1/chat/completions", json=chat()).status_code == 200
    return server


@pytest.fixture
def metrics(used: BackstopProcess) -> str:
    """What Prometheus is told by it."""
    return httpx.get(f"{used.root}/metrics", headers={"authorization": f"Bearer {KEY}"}).text


@pytest.fixture
def prometheus(used: BackstopProcess, tmp_path: Path) -> Iterator[httpx.Client]:
    """The HTTP API of a Prometheus that scrapes it, with the rules."""
    (tmp_path / "key").write_text(KEY)
    job = {
        "job_name": "backstop",
        "authorization": {"credentials_file": "key"},
        "static_configs": [{"targets": [f"127.0.0.1:{used.port}"]}],
    }
    times = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": times, "rule_files": [str(RULES)], "scrape_configs": [job]}))
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    storage = f"--storage.tsdb.path={tmp_path / 'data'}"
    with open(tmp_path / "prometheus.log", "wb") as log:
        process = subprocess.Popen([*command, storage], stdout=log, stderr=log)
    try:
        eventually(lambda: httpx.get(f"http://127.0.0.1:{port}/-/ready").status_code == 200)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def test_every_metric_that_is_asked_for_exists(metrics: str) -> None:
    samples = {sample.name for family in text_string_to_metric_families(metrics) for sample in family.samples}
    known = samples | OF_PROMETHEUS | OF_TLS | OF_BACKSTOP_DRILL
    queries = [*dashboard_queries(), *(rule["expr"] for rule in rules())]
    asked = {name for query in queries for name in NAME.findall(query)}
    assert len(asked) > 25
    assert not asked - known
    # The tests of the rules are about the same ones.
    assert not set(NAME.findall(re.sub(r"alertname.*", "", RULES_TEST.read_text()))) - known


def test_every_alert_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    headings = re.findall(r"^## (\w+)$", (REPOSITORY / "docs/alerts.md").read_text(), re.MULTILINE)
    assert headings == names
    for rule in rules():
        annotations = rule["annotations"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert "{{ $labels.instance }}" in annotations["summary"]
        assert len(annotations["description"]) > 40
        assert annotations["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"


def test_panels_are_where_one_can_see_them() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    cells = set()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        covered = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not covered & cells, f"{panel['title']} lies on another"
        cells |= covered
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            assert '{job="$job", instance=~"$instance"' in target["expr"] or OF_BACKSTOP_DRILL & set(NAME.findall(target["expr"]))


@needs_promtool
def test_prometheus_understands_the_rules_and_they_fire_when_they_should() -> None:
    for command in (("check", "rules", str(RULES)), ("test", "rules", str(RULES_TEST))):
        done = promtool(*command)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    queries = [query for query in dashboard_queries() if not query.startswith("label_values")]
    queries = [query.replace("$__rate_interval", "1m").replace("$", "") for query in queries]
    recorded = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_finds_no_fault_with_the_metrics(metrics: str) -> None:
    complaints = promtool("check", "metrics", text=metrics).stderr.splitlines()
    # Of colons, which vLLM's names have, and of one of vLLM's names.
    expected = ("should not contain ':'", 'vllm:iteration_tokens_total non-counter metrics should not have "_total" suffix')
    assert not [complaint for complaint in complaints if not complaint.endswith(expected)]


@needs_prometheus
def test_prometheus_evaluates_all_of_it_on_a_running_server(prometheus: httpx.Client) -> None:
    def answered(query: str) -> list[Any]:
        answer = prometheus.get("/query", params={"query": query})
        assert answer.status_code == 200, f"{query}: {answer.text}"
        return answer.json()["data"]["result"]

    def health() -> list[str]:
        groups = prometheus.get("/rules").json()["data"]["groups"]
        return [rule["health"] for group in groups for rule in group["rules"]]

    # Rates need two scrapes.
    eventually(lambda: len(answered("rate(vllm:generation_tokens_total[1m])")) == 1)
    eventually(lambda: health() == ["ok"] * len(rules()))
    silent = []
    for panel in panels():
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "1m").replace("$job", "backstop").replace("$instance", ".*")
            if not answered(query):
                silent.append(panel["title"])
    # Nobody has drilled.
    assert set(silent) == {"Last passed drill"}
    assert answered('ALERTS{severity="critical"}') == []
