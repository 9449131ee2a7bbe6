"""`backstop-qualify adapters`: other harnesses, as they are, run against this server, and their numbers are read.

Each package is skipped where it is not installed. `QUALIFY_VENVS` names a directory with a virtual environment for each
(`lm-eval`, `evalplus`, `bfcl-eval`, `mini-swe-agent`); without it, this test's own environment is looked at.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from answering_server import model
from backstop_process import BINARY, BackstopProcess

QUALIFY = BINARY.with_name("backstop-qualify")
TIMEOUT_S = 900

if not QUALIFY.is_file():
    pytest.skip("build it: cargo build -p backstop-qualify", allow_module_level=True)

pytestmark = pytest.mark.slow

LM_EVAL_TASK = """\
task: facts
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "Complete: {{{{question}}}}"
doc_to_target: answer
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 4
  temperature: 0.0
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
EVALPLUS_TASK = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a: int, b: int) -> int:\n    """Return the sum of a and b."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "contract": "",
    "base_input": [[1, 2]],
    "plus_input": [[-1, 5]],
    "atol": 0,
}


def environment_of(package: str, *modules: str) -> Path:
    """A package's virtual environment; skips where it lacks one of these modules."""
    venvs = os.environ.get("QUALIFY_VENVS")
    venv = Path(venvs) / package if venvs else Path(sys.prefix)
    imports = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))"
    python = venv / "bin/python"
    if not python.is_file() or subprocess.run([python, "-c", imports, *modules], check=False).returncode:
        pytest.skip(f"{package} is not installed in {venv}")
    return venv


def adapter(
    kind: str, venv: Path, url: str, into: Path, *arguments: str, check: bool = True, **variables: str
) -> tuple[list[dict], str]:
    """Runs an adapter; the measures that came of it, and what it said."""
    command = [QUALIFY, "adapters", "run", kind, "--venv", venv, "--url", url, "--into", into, *arguments]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(into / "hf")}
    environment = os.environ | offline | variables
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if "cannot be contained" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    if not check:
        assert done.returncode == 1
        return [], done.stderr
    assert done.returncode == 0, done.stderr
    return json.loads((into / "measures" / f"{kind}.json").read_text()), done.stderr


def test_lm_eval_is_run_and_read(server: BackstopProcess, tmp_path: Path) -> None:
    venv = environment_of("lm-eval", "lm_eval", "datasets")
    data = tmp_path / "facts.jsonl"
    data.write_text("".join(json.dumps({"question": f"{n} + 1 =", "answer": str(n + 1)}) + "\n" for n in range(4)))
    (tmp_path / "facts.yaml").write_text(LM_EVAL_TASK.format(data=data))
    own = ["--tasks", "facts", "--include_path", str(tmp_path)]
    own += ["--model_args", "tokenizer_backend=None,tokenized_requests=False"]
    measures, _ = adapter("lm-eval", venv, server.base_url, tmp_path / "into", "--model", "demo", "--", *own)
    (measure,) = measures
    assert (measure["suite"], measure["metric"], measure["count"]) == ("lm-eval/facts", "exact_match", 4)
    assert measure["source"].startswith("lm-eval 0.")
    assert measure["interval"]["low"] <= measure["value"] <= measure["interval"]["high"]
    assert measure["settings"]["model_type"] == "local-completions"


def test_evalplus_judges_in_isolation(tmp_path: Path) -> None:
    venv = environment_of("evalplus", "evalplus", "datasets")
    data = tmp_path / "tasks.jsonl"
    data.write_text(json.dumps(EVALPLUS_TASK) + "\n")
    escaped = tmp_path / "escaped"
    program = EVALPLUS_TASK["prompt"]
    # EvalPlus takes `open` away, but not what it is made of.
    program += f"    try:\n        __import__('io').open({str(escaped)!r}, 'w').close()\n"
    program += "    except Exception:\n        pass\n    return a + b\n"
    answer = f"```python\n{program}```"
    with model(lambda _: answer) as (url, _):
        measures, _ = adapter(
            "evalplus", venv, url, tmp_path / "into", "--model", "model", HUMANEVAL_OVERRIDE_PATH=str(data)
        )
    values = {measure["suite"]: measure["value"] for measure in measures}
    assert values == {"evalplus/humaneval": 1.0, "evalplus/humaneval+": 1.0}
    assert measures[0]["settings"]["temperature"] == 0.0
    assert len(measures[0]["settings"]["data_sha256"]) == 64
    assert not escaped.exists()


def test_bfcl_asks_a_model_of_any_name(server: BackstopProcess, tmp_path: Path) -> None:
    venv = environment_of("bfcl-eval", "bfcl_eval", "soundfile")
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps({"simple_python": ["simple_python_0"], "irrelevance": ["irrelevance_0"]}))
    own = ["--run-ids", str(ids)]
    measures, _ = adapter("bfcl", venv, server.root, tmp_path / "into", "--model", "demo", "--", *own)
    assert {measure["suite"]: measure["count"] for measure in measures} == {
        "bfcl/simple_python": 1,
        "bfcl/irrelevance": 1,
    }
    assert measures[0]["settings"]["mode"] == "fc" and measures[0]["settings"]["partial"] is True


def test_bfcl_does_not_run_calls_unless_told(tmp_path: Path) -> None:
    venv = environment_of("bfcl-eval", "bfcl_eval")
    own = ["--model", "demo", "--", "--test-category", "multi_turn"]
    _, said = adapter("bfcl", venv, "http://127.0.0.1:9", tmp_path / "into", *own, check=False)
    assert "--uncontained" in said


def test_mini_swe_agent_leaves_a_trajectory(tmp_path: Path) -> None:
    venv = environment_of("mini-swe-agent", "minisweagent", "litellm")
    project = tmp_path / "project"
    project.mkdir()
    answers = iter(["printf fixed > calc.py", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"])
    own = ["--task", "Fix calc.py", "--environment-class", "local", "--model-class", "litellm_textbased"]
    own += ["-c", "mini_textbased.yaml", "-c", f"environment.cwd={project}"]
    with model(lambda _: f"I act.\n\n```mswea_bash_command\n{next(answers)}\n```") as (url, _):
        _, said = adapter(
            "mini-swe-agent", venv, url, tmp_path / "into", "--model", "model", "--", *own, check=False
        )
        assert "--uncontained" in said and not list(project.iterdir())
        measures, _ = adapter(
            "mini-swe-agent", venv, url, tmp_path / "into", "--model", "model", "--uncontained", "--", *own
        )
    assert (project / "calc.py").read_text() == "fixed"
    values = {measure["metric"]: measure["value"] for measure in measures}
    assert values == {"attempts": 1.0, "submitted": 1.0, "requests_mean": 2.0}
    assert measures[0]["settings"]["ends"] == {"Submitted": 1}


def test_a_package_that_fails_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    venv = environment_of("lm-eval", "lm_eval", "datasets")
    own = ["--model", "demo", "--", "--tasks", "no_such_task"]
    _, said = adapter("lm-eval", venv, "http://127.0.0.1:9", tmp_path / "into", *own, check=False)
    assert "exit status" in said and "no_such_task" in said
    assert not (tmp_path / "into/measures").exists()


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    own = ["--model", "demo", "--", "--tasks", "x"]
    _, said = adapter("lm-eval", tmp_path, "http://127.0.0.1:9", tmp_path / "into", *own, check=False)
    assert "install lm_eval in a virtual environment" in said
