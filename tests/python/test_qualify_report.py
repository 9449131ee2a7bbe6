"""`backstop report`: a page that everybody can read, and a signature that others can check."""

import base64
import hashlib
import json
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import browser
from backstop_process import BINARY, REPOSITORY, BackstopProcess
from browser import DESKTOP, PHONE, SMALLEST_CONTRAST

QUALIFY = BINARY.with_name("backstop-qualify")
pytestmark = pytest.mark.skipif(not QUALIFY.is_file(), reason=f"{QUALIFY} does not exist: cargo build -p backstop-qualify")

MANIFEST = REPOSITORY / "models/qwen2.5-coder-0.5b-instruct.toml"
HOSTILE = "<img src=x onerror=alert(1)>"
NOT_VERIFIED, EXPIRED = 1, 3


def qualify(*arguments: object, expected: int = 0) -> str:
    done = subprocess.run(
        [str(QUALIFY), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == expected, done.stderr
    return done.stdout + done.stderr


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def measure(suite: str, metric: str, passed: int, count: int, **settings: Any) -> dict[str, Any]:
    rate = passed / count
    interval = {"low": max(rate - 0.08, 0), "high": min(rate + 0.08, 1), "confidence": 0.95, "method": "wilson"}
    return {
        "suite": suite, "metric": metric, "value": rate, "interval": interval, "count": count, "samples": 1,
        "settings": settings, "source": "backstop-qualify 0.1.0",
    }  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """What suites and benchmarks leave behind, with a model whose name is hostile."""
    root = tmp_path / "results"
    subject = {
        "url": "http://127.0.0.1:8000",
        "model": HOSTILE,
        "backstop_model": "qwen@0123456789abcdef",
        "fingerprint": "backstop-0.1.0-0123456789ab",
        "version": {"version": "0.1.0", "device": "CPU, 2 threads", "batch_invariant": True},
        "entry": {"id": HOSTILE, "max_model_len": 32768, "provenance": {"tokenizer": "a" * 64}},
    }
    run = {"program": "backstop-qualify 0.1.0", "subject": subject, "settings": {"seed": 0}, "began_unix_s": 1_790_000_000}
    write_json(root / "run.json", run)
    write_json(root / "measures/code/humaneval.json", [measure("code/humaneval", "pass@1", 96, 164, temperature=0)])
    write_json(root / "measures/code/humaneval+.json", [measure("code/humaneval+", "pass@1", 60, 164, temperature=0)])
    write_json(root / "measures/code/mbpp.json", [measure("code/mbpp", "pass@10", 300, 400, temperature=0.8)])
    tools = [measure("tools", name, 300 + number, 500) for number, name in enumerate(["schema_validity", "trigger"])]
    tools += [measure("tools", f"repeat_identical_{what}", 490, 500, repeats=2) for what in ["answers", "outcomes"]]
    tools.append({**measure("tools", "repeat_spread_of_schema_validity", 4, 500, repeats=2), "interval": None})
    write_json(root / "measures/tools.json", tools)
    write_json(root / "answers/tools.jsonl", {"task": "a"})
    return root


def summary(clients: int, output: float, shed: int) -> dict[str, Any]:
    percentiles = [{"percent": 99.0, "value": clients * 0.2}]
    return {
        "concurrency": clients,
        "summary": {
            "requests": 100, "completed": 100 - shed, "failed": shed, "error_rate": shed / 100,
            "errors": {"http_429": shed} if shed else {}, "request_throughput": output / 64,
            "output_throughput": output, "total_token_throughput": output * 4,
            "ttft_s": {"median": clients * 0.05, "percentiles": percentiles},
            "tpot_s": {"median": 0.01 * clients, "percentiles": percentiles},
        },
    }  # fmt: skip


@pytest.fixture
def built(results: Path, tmp_path: Path) -> Path:
    """A report with all that there can be, in a directory of its own."""
    phase = {"requests": 10, "lost": 0, "fallback_first_token_s": {"p50": 0.5, "p99": 0.8, "max": 0.8}}
    failures = [
        {"name": name, "what": name, "verdict": verdict, "reasons": [], "during": phase}
        for name, verdict in [("connection-refused", "passed"), ("status-502", "passed"), ("tls-failure", "not rehearsed")]
    ]
    subject = {"gateway": "litellm.yaml", "model": "chat"}
    drill = {"shape": 1, "program": "backstop-drill 0.1.0", "verdict": "passed", "began_unix_s": 1_790_000_000, "subject": subject}
    drill_path = write_json(tmp_path / "drill.json", {**drill, "failures": failures})
    runs = [summary(1, 60, 0), summary(4, 190, 0), summary(16, 260, 0), summary(64, 255, 30)]
    bench = write_json(tmp_path / "bench.json", {"runs": runs})
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"weights")
    report = tmp_path / "report"
    qualify(
        "report", "build", results, "--manifest", MANIFEST, "--drill", drill_path, "--bench", bench,
        "--weights", weights, "--weights-format", "Q4_K_M", "--hourly-cost", 2.5, "--location", "own data centre",
        "--html", report / "report.html", "--json", report / "report.json",
    )  # fmt: skip
    return report


def read(report: Path) -> dict[str, Any]:
    return json.loads((report / "report.json").read_text())


def test_claims_are_judged_by_what_was_measured_and_how(built: Path) -> None:
    claims = {claim["benchmark"]: claim for claim in read(built)["claims"]}
    assert {name: claim["verdict"] for name, claim in claims.items()} == {
        "humaneval": "reproduced",
        "humaneval+": "lower",
        "mbpp": "not_comparable",
        "mbpp+": "not_run",
    }
    assert claims["mbpp"]["reason"].startswith("the claim is pass@1, ours is pass@10; the vendor's harness is evalplus")
    assert "quantised weights were served: Q4_K_M" in claims["humaneval"]["notes"]


def test_what_is_known_is_in_the_report_and_what_is_not_is_named(built: Path, results: Path, tmp_path: Path) -> None:
    report = read(built)
    assert report["summary"]["verdict"] == "falls_short"
    assert [part["section"] for part in report["summary"]["findings"]] == ["claims", "noise", "speed", "drill", "decision"]
    assert report["noise"][0]["identical"] == 0.98 and report["noise"][0]["spreads"] == {"schema_validity": 0.008}
    assert report["identity"]["files"] == {"weights: weights.gguf": hashlib.sha256(b"weights").hexdigest()}
    run = hashlib.sha256((results / "run.json").read_bytes()).hexdigest()
    assert report["evidence"]["run.json"] == run and "answers/tools.jsonl" in report["evidence"]
    # The most at which all was answered: 260 tokens a second, and three times as many read.
    assert report["cost"]["per_million_output_tokens"] == pytest.approx(2.5 / (260 * 3600) * 1e6)
    bare = tmp_path / "bare.json"
    qualify("report", "build", results, "--json", bare)
    missing = json.loads(bare.read_text())["summary"]["missing"]
    assert len(missing) == 4 and any("--drill" in part for part in missing)
    refused = qualify("report", "build", results, "--json", bare, "--hourly-cost", 2, expected=1)
    assert "--hourly-cost needs --bench" in refused


# The page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    browser.require()
    with browser.running_browser() as running:
        yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_can_be_read_by_everybody(built: Path, chromium: Any, scheme: str, viewport: dict[str, int]) -> None:
    context = chromium.new_context(viewport=viewport, color_scheme=scheme)
    page = context.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((built / "report.html").as_uri())
    assert complaints == [] and len(requests) == 1
    assert page.locator("h1").inner_text().startswith(f"Qualification of {HOSTILE}")
    assert page.locator("img").count() == 0
    # It never scrolls sideways as a whole; wide tables do, by themselves.
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    ratio, text = page.evaluate(SMALLEST_CONTRAST)
    assert ratio >= 4.5, text
    for image in page.locator("svg").all():
        assert image.get_attribute("role") == "img" and image.get_attribute("aria-label")
    for link in page.locator("a[href^='#']").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size") == page.locator("[id]").count()
    context.close()


def test_the_page_prints_in_the_light(built: Path, chromium: Any) -> None:
    context = chromium.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto((built / "report.html").as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 36, 48)"
    assert page.pdf(format="A4").startswith(b"%PDF")
    context.close()


# The signature


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "signer.pem"
    qualify("report", "keygen", "--key", path)
    return path


@pytest.fixture
def envelope(built: Path, key: Path) -> Path:
    files = ["--json", built / "report.json", "--html", built / "report.html"]
    qualify("report", "sign", *files, "--key", key, "--out", built / "report.dsse")
    return built / "report.dsse"


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def test_the_private_key_is_its_owners_alone(key: Path, built: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert "exists" in qualify("report", "keygen", "--key", key, expected=1)
    assert key.read_bytes() == before
    key.chmod(0o644)
    refused = qualify("report", "sign", "--json", built / "report.json", "--key", key, expected=1)
    assert "chmod 600" in refused and "PRIVATE" not in refused


def test_others_can_check_the_signature(envelope: Path, key: Path, tmp_path: Path) -> None:
    dsse = pytest.importorskip("securesystemslib.dsse")
    signer = pytest.importorskip("securesystemslib.signer")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    wire = json.loads(envelope.read_text())
    loaded = serialization.load_pem_public_key(public(key).read_bytes())
    key_id = wire["signatures"][0]["keyid"]
    assert key_id == hashlib.sha256(public(key).read_bytes()).hexdigest()
    parsed = dsse.Envelope.from_dict(json.loads(envelope.read_text()))
    accepted = parsed.verify([signer.SSlibKey.from_crypto(loaded, keyid=key_id)], 1)
    assert list(accepted) == [key_id]
    # And without any library of the format.
    (tmp_path / "signed").write_bytes(parsed.pae())
    (tmp_path / "sig").write_bytes(base64.b64decode(wire["signatures"][0]["sig"]))
    if shutil.which("openssl"):
        command = ["openssl", "dgst", "-sha256", "-verify", public(key), "-signature", tmp_path / "sig", tmp_path / "signed"]
        assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "Verified OK"


def test_what_others_signed_is_accepted(envelope: Path, tmp_path: Path) -> None:
    dsse = pytest.importorskip("securesystemslib.dsse")
    signer = pytest.importorskip("securesystemslib.signer")
    theirs = signer.CryptoSigner.generate_ecdsa()
    wire = json.loads(envelope.read_text())
    foreign = dsse.Envelope(base64.b64decode(wire["payload"]), wire["payloadType"], {})
    foreign.sign(theirs)
    envelope.write_text(json.dumps(foreign.to_dict()))
    pem = tmp_path / "theirs.pub"
    pem.write_text(theirs.public_key.keyval["public"])
    assert "VERIFIED" in qualify("report", "verify", envelope, "--key", pem)


def test_the_statement_is_in_totos(envelope: Path, built: Path) -> None:
    statement = json.loads(base64.b64decode(json.loads(envelope.read_text())["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    digests = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    for name in ["report.json", "report.html"]:
        assert digests[name] == hashlib.sha256((built / name).read_bytes()).hexdigest()
    assert digests["weights: weights.gguf"] == hashlib.sha256(b"weights").hexdigest()
    predicate = statement["predicate"]
    assert predicate["result"] == "FAILED"
    assert predicate["failedTests"] == ["claim: HumanEval+, pass@1"]
    assert predicate["qualification"]["expires"] == read(built)["expires"]


def test_a_report_is_verified(envelope: Path, key: Path, tmp_path: Path) -> None:
    said = qualify("report", "verify", envelope, "--key", public(key), "--also", tmp_path / "weights.gguf")
    assert said.startswith("VERIFIED\n")
    for part in ["report.html", "report.json", "weights.gguf", "FAILED"]:
        assert part in said


def test_what_was_changed_is_not_verified(envelope: Path, built: Path, key: Path, tmp_path: Path) -> None:
    def refused(*more: object, by: Path = key) -> str:
        return qualify("report", "verify", envelope, "--key", public(by), *more, expected=NOT_VERIFIED)

    page = built / "report.html"
    good = page.read_text()
    page.write_text(good.replace("falls short", "as claimed"))
    assert "it is not the file that was signed" in refused()
    page.write_text(good)
    other = tmp_path / "other.pem"
    qualify("report", "keygen", "--key", other)
    assert "the signature is not by this key" in refused(by=other)
    assert "none of those that were signed" in refused("--also", public(key))
    assert "none of the signed files is there" in refused("--files", tmp_path / "results")
    wire = json.loads(envelope.read_text())
    payload = base64.b64decode(wire["payload"]).replace(b"FAILED", b"PASSED")
    envelope.write_text(json.dumps({**wire, "payload": base64.b64encode(payload).decode()}))
    assert "changed after signing" in refused()
    envelope.write_text(json.dumps({**wire, "payloadType": "text/plain"}))
    assert "NOT VERIFIED" in refused()
    envelope.write_text("{}")
    assert "NOT VERIFIED" in refused()


def test_a_report_expires(results: Path, key: Path, tmp_path: Path) -> None:
    report = tmp_path / "short.json"
    qualify("report", "build", results, "--json", report, "--expires", "1s")
    qualify("report", "sign", "--json", report, "--key", key)
    envelope = report.with_name("short.json.dsse")
    while time.time() < 1 + json_time(report):
        time.sleep(0.05)
    assert qualify("report", "verify", envelope, "--key", public(key), expected=EXPIRED).startswith("EXPIRED\n")


def json_time(report: Path) -> float:
    """When a report expires, in seconds since 1970."""
    import datetime

    return datetime.datetime.fromisoformat(json.loads(report.read_text())["expires"]).timestamp()


# Conformance


def test_backstop_behaves_as_gateways_need_it(start: Callable[..., BackstopProcess], results: Path, tmp_path: Path) -> None:
    key = tmp_path / "keys"
    key.write_text("the-gateways-key name=gateway may-see-all-keys\n")
    server = start("--api-key-file", str(key)).wait_until_ready()
    own = tmp_path / "key"
    own.write_text("the-gateways-key\n")
    model = httpx_model(server)
    run = json.loads((results / "run.json").read_text())
    run["subject"] = {**run["subject"], "url": server.root, "model": model}
    write_json(results / "run.json", run)
    arguments = ["--url", server.root, "--model", model, "--api-key-file", own, "--into", results, "--overload", 400]
    qualify("conformance", *arguments)
    checks = {check["name"]: check for check in json.loads((results / "conformance.json").read_text())["checks"]}
    assert {name for name, check in checks.items() if check["outcome"] != "passed"} == set(), checks
    assert checks["too long"]["seen"].startswith("400") and "context_length_exceeded" in checks["too long"]["seen"]
    report = tmp_path / "report.json"
    qualify("report", "build", results, "--json", report)
    assert len(json.loads(report.read_text())["conformance"]["checks"]) == len(checks)
    refused = qualify("conformance", "--url", server.root, "--model", "another", "--into", results, expected=1)
    assert "a report would mix them" in refused


def httpx_model(server: BackstopProcess) -> str:
    import httpx

    return httpx.get(f"{server.base_url}/models", headers={"Authorization": "Bearer the-gateways-key"}).json()["data"][0]["id"]
