"""`--suite repo`: a repository's commits become tasks, and answers are judged by the commits' tests, in isolation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from answering_server import model
from backstop_process import BINARY

QUALIFY = BINARY.with_name("backstop-qualify")
TEST_COMMAND = "python3 -m unittest {tests}"
TIMEOUT_S = 300

if not QUALIFY.is_file():
    pytest.skip("build it: cargo build -p backstop-qualify", allow_module_level=True)

ADD = "def add(a, b):\n    return a + b\n"
SUBTRACT = ADD + "\n\ndef subtract(a, b):\n    return a - b\n"


def unit_test(name: str, expression: str, expected: str) -> str:
    return (
        f"import unittest\nimport calc\n\n\nclass Test(unittest.TestCase):\n"
        f"    def test_{name}(self):\n        self.assertEqual({expression}, {expected})\n"
    )


COMMITS: list[tuple[str, dict[str, str]]] = [
    ("Begin with an adder", {"calc.py": "def add(a, b):\n    return a\n", "tests/__init__.py": ""}),
    ("Make add return the sum", {"calc.py": ADD, "tests/test_add.py": unit_test("add", "calc.add(2, 3)", "5")}),
    ("Say what it does here", {"README.md": "It adds.\n"}),
    ("Test sums of zero too", {"tests/test_zero.py": unit_test("zero", "calc.add(0, 0)", "0")}),
    (
        "Need what is not installed",
        {
            "extra.py": "import nobody_has_this\n",
            "tests/test_extra.py": unit_test("extra", "extra.nobody_has_this.VALUE", "1").replace("calc", "extra"),
        },
    ),
    (
        "Subtract numbers as well, by subtract(a, b)",
        {"calc.py": SUBTRACT, "tests/test_subtract.py": unit_test("subtract", "calc.subtract(2, 3)", "-1")},
    ),
]


def whole(path: str, text: str) -> str:
    return f"FILE: {path}\n```python\n{text}```\n"


def oracle(prompt: str) -> str:
    return whole("calc.py", ADD if "Make add return the sum" in prompt else SUBTRACT)


HOSTILE = f"""
import os, socket, subprocess
for path in ("/work/../escaped", "{{outside}}/escaped", os.path.expanduser("~/escaped"), "/etc/escaped"):
    try:
        open(path, "w").close()
    except OSError:
        pass
try:
    socket.create_connection(("127.0.0.1", int("{{port}}")), 2).sendall(b"GET /escaped HTTP/1.0\\r\\n\\r\\n")
except OSError:
    pass
{ADD}
{SUBTRACT}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null"}
    for name in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{name}_NAME": "Test", f"GIT_{name}_EMAIL": "test@example.org"}

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=path, env=environment, check=True, capture_output=True)

    git("init", "-q")
    for message, files in COMMITS:
        for name, text in files.items():
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", message)
    return path


def qualify(repository: Path, into: Path, url: str, *more: str) -> dict[str, dict]:
    """Runs the suite; its measures by their names."""
    command = [QUALIFY, "--suite", "repo", "--repo", repository, "--repo-test", TEST_COMMAND]
    command += ["--url", url, "--model", "model", "--into", into, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if "cannot be contained" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    (file,) = (into / "measures").glob("repo*.json")
    return {measure["metric"]: measure for measure in json.loads(file.read_text())}


def attempts(into: Path) -> list[dict]:
    (file,) = (into / "answers").glob("repo*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_an_oracle_passes_every_task_and_what_is_no_task_is_told(repository: Path, tmp_path: Path) -> None:
    into = tmp_path / "results"
    with model(oracle) as (url, _):
        measures = qualify(repository, into, url)
    assert measures["pass@1"]["value"] == 1.0
    assert measures["pass@1"]["count"] == 2
    assert measures["pass@1"]["settings"]["left_out"] == {"fails_after": 1, "no_code": 2}
    selection = json.loads((into / "repo-selection.json").read_text())
    assert [task["passed"] for task in selection["tasks"]] == [1, 1]
    (needy,) = (one for one in selection["left_out"] if one["reason"] == "fails_after")
    assert "nobody_has_this" in needy["details"]


def test_an_idle_model_passes_none(repository: Path, tmp_path: Path) -> None:
    with model(lambda _: whole("other.py", "x = 1\n")) as (url, _):
        measures = qualify(repository, tmp_path / "results", url)
    assert measures["pass@1"]["value"] == 0.0
    assert measures["applicable_changes"]["value"] == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        whole("tests/test_add.py", "") + whole("calc.py", ADD),
        whole("../escaped.py", "x = 1\n"),
        whole("/tmp/escaped.py", "x = 1\n"),
        "I have changed the file.",
    ],
)
def test_answers_that_edit_tests_or_lead_out_are_no_changes(repository: Path, tmp_path: Path, answer: str) -> None:
    with model(lambda _: answer) as (url, _):
        measures = qualify(repository, tmp_path / "results", url)
    assert measures["pass@1"]["value"] == measures["applicable_changes"]["value"] == 0.0


def test_a_program_that_ends_early_passes_nothing(repository: Path, tmp_path: Path) -> None:
    into = tmp_path / "results"
    with model(lambda _: whole("calc.py", "import os\nos._exit(0)\n")) as (url, _):
        measures = qualify(repository, into, url)
    assert measures["pass@1"]["value"] == 0.0
    assert all("0 passed instead of 1" in attempt["reason"] for attempt in attempts(into))


def test_what_the_model_wrote_reaches_neither_files_nor_the_network(repository: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    port = ""

    def hostile(_: str) -> str:
        return whole("calc.py", HOSTILE.format(outside=outside, port=port))

    with model(hostile) as (url, asked):
        port = url.rsplit(":", 1)[1]
        measures = qualify(repository, tmp_path / "results", url)
    assert measures["pass@1"]["value"] == 1.0, "it does what was asked as well"
    assert not list(outside.iterdir()) and "/escaped" not in asked
    assert not Path("/etc/escaped").exists() and not Path("~/escaped").expanduser().exists()


def test_a_virtual_environment_can_be_read(repository: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=TIMEOUT_S)
    (packages,) = environment.glob("lib/python3*/site-packages")
    (packages / "nobody_has_this.py").write_text("VALUE = 1\n")
    with model(oracle) as (url, _):
        measures = qualify(repository, tmp_path / "results", url, "--repo-environment", str(environment))
    assert measures["pass@1"]["count"] == 3
    assert measures["pass@1"]["settings"]["left_out"] == {"no_code": 2}
