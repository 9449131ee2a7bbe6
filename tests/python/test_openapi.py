"""The server does what its OpenAPI document says, whatever is sent to it. Skipped without schemathesis.

`CASES` is small here. A long run is many of these by hand, each with cases of its own; a single one of many cases
takes far longer, because drawing slows down with what has been drawn:

    for seed in $(seq 18); do
        BACKSTOP_OPENAPI_CASES=400 BACKSTOP_OPENAPI_SEED=$seed pytest -s tests/python/test_openapi.py
    done
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

pytest.importorskip("schemathesis")

from backstop_process import REPOSITORY, BackstopProcess  # noqa: E402

# Cases for each operation.
CASES = os.environ.get("BACKSTOP_OPENAPI_CASES", "20")
SEED = os.environ.get("BACKSTOP_OPENAPI_SEED", "1")
HERE = Path(__file__).parent
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


def test_no_request_finds_an_answer_that_is_not_in_the_document(
    start: Callable[..., BackstopProcess], tmp_path: Path
) -> None:
    # Any name is answered, or most cases would be a 404.
    encoders = REPOSITORY / "tests/goldens/encoders"
    vectors = ["--embedding-model", str(encoders / "bert_mean"), "--served-embedding-name", "vectors,*"]
    scores = ["--reranker-model", str(encoders / "bert_reranker"), "--served-reranker-name", "scores,*"]
    server = start("--served-model-name", "demo,*", *vectors, *scores).wait_until_ready()
    document = tmp_path / "openapi.json"
    document.write_text(httpx.get(f"{server.root}/openapi.json").text)
    command = [str(SCHEMATHESIS), "run", str(document), "--url", server.root, "--phases", "examples,fuzzing"]
    command += ["--checks", ",".join(CHECKS), "--max-examples", CASES, "--seed", SEED, "--continue-on-failure"]
    # Longer than this is a hang.
    command += ["--request-timeout", "60", "--suppress-health-check", "all", "--no-shrink"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(HERE)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout
    server.wait_until_idle()
