"""What operators, balancers and gateways ask: health, readiness, metrics, version, models."""

import time

import httpx
from openai import OpenAI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from backstop_process import BackstopProcess
from requests_made import MODEL_NAME, chat

GAUGES = {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"}
COUNTERS = {
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:num_preemptions_total",
}
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:iteration_tokens_total",
}


def test_health_and_readiness(server: BackstopProcess) -> None:
    for path in ("/health", "/ready", "/ping"):
        answer = httpx.get(server.root + path)
        assert answer.status_code == 200
        assert answer.json()["status"] == "ready"


def test_version_and_root(server: BackstopProcess) -> None:
    assert httpx.get(f"{server.root}/version").json()["version"]
    assert httpx.get(server.root).json()["name"] == "backstop"
    assert httpx.head(server.root).status_code == 200


def test_models_publish_their_limits(client: OpenAI) -> None:
    [model] = client.models.list()
    assert model.id == MODEL_NAME
    assert model.object == "model"
    assert model.created > 1_700_000_000
    fields = model.model_extra
    assert fields["max_model_len"] == fields["context_length"] > 0
    assert 0 < fields["max_input_tokens"] < fields["max_model_len"]
    assert 0 < fields["max_output_tokens"] <= fields["max_model_len"]
    assert client.models.retrieve(MODEL_NAME) == model


def test_metrics_parse_in_both_formats(client: OpenAI, server: BackstopProcess) -> None:
    client.chat.completions.create(**chat())
    classic = httpx.get(f"{server.root}/metrics")
    assert classic.headers["content-type"].startswith("text/plain")
    check_names(list(parse_classic(classic.text)))
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    open_metrics = httpx.get(f"{server.root}/metrics", headers=accept)
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    check_names(list(parse_openmetrics(open_metrics.text)))


def test_the_process_tells_what_it_takes(server: BackstopProcess) -> None:
    server.wait_until_idle()
    metrics = server.metrics()
    resident, peak = metrics["process_resident_memory_bytes"], metrics["process_resident_memory_peak_bytes"]
    assert 0 < resident <= peak <= server.peak_resident_bytes()
    assert abs(resident - server.resident_bytes()) < 0.2 * resident
    assert 0 < metrics["process_open_fds"] < metrics["process_max_fds"]
    assert abs(metrics["process_threads"] - server.threads()) < 8
    assert metrics["process_cpu_seconds_total"] > 0
    assert abs(metrics["process_start_time_seconds"] - time.time()) < 24 * 3600
    assert metrics["backstop:requests_in_flight"] == 0
    assert metrics["backstop:runtime_tasks"] > 0


def check_names(families: list) -> None:
    samples = {sample.name for family in families for sample in family.samples}
    assert GAUGES | COUNTERS <= samples
    assert {f"{name}_bucket" for name in HISTOGRAMS} <= samples
    engine = [sample for family in families for sample in family.samples if sample.name in GAUGES]
    assert {sample.labels["model_name"] for sample in engine} == {MODEL_NAME}


def test_metrics_count_what_happened(client: OpenAI, server: BackstopProcess) -> None:
    server.wait_until_idle()
    before = server.metrics()
    usage = client.chat.completions.create(**chat("A prompt for the counters.")).usage
    server.wait_until_idle()
    after = server.metrics()

    def grown(name: str) -> float:
        return after[name] - before[name]

    assert grown("vllm:prompt_tokens_total") == usage.prompt_tokens
    assert grown("vllm:generation_tokens_total") == usage.completion_tokens
    assert grown("vllm:request_success_total") == 1
    assert grown("vllm:e2e_request_latency_seconds_count") == 1
    assert grown("vllm:time_to_first_token_seconds_count") == 1


def test_a_repeated_prompt_comes_from_the_prefix_cache(client: OpenAI) -> None:
    body = chat("The same words again, long enough for several blocks of the cache. " * 4)
    first = client.chat.completions.create(**body)
    second = client.chat.completions.create(**body)
    assert second.usage.prompt_tokens_details.cached_tokens > 0
    assert second.choices[0].message == first.choices[0].message


def test_probes_answer_fast_under_load(client: OpenAI, server: BackstopProcess) -> None:
    extra = {"ignore_eos": True}
    with client.chat.completions.create(**chat(n=16, max_tokens=400), stream=True, extra_body=extra):
        server.wait_until_running(16)
        with httpx.Client(base_url=server.root) as probe:
            for path in ("/health", "/ready", "/metrics", "/v1/models"):
                started = time.monotonic()
                assert probe.get(path).status_code == 200
                assert time.monotonic() - started < 1.0, path
    server.wait_until_idle()
