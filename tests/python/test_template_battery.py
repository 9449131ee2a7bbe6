"""Chat templates of real models, and small ones with something peculiar to Python or jinja2, become the same text in
Backstop as in jinja2 with transformers' settings."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from backstop_process import BINARY, REPOSITORY
from llama_cpp_source import SourceUnavailable, llama_cpp_source

sys.path.insert(0, str(REPOSITORY / "scripts" / "goldens"))

import template_battery as battery  # noqa: E402
from battery_conversations import CONVERSATIONS  # noqa: E402
from battery_expressions import SOURCES, VARIABLES  # noqa: E402

RENDERER = BINARY.parent / "examples/render_templates"
RENDERING_TIMEOUT_S = 600

if not RENDERER.is_file():
    pytest.skip("build the examples: see README.md", allow_module_level=True)


def rendered_by_backstop(tasks: list[tuple[str, list[dict]]]) -> list[list[dict]]:
    """What becomes of each template's cases; one that is refused when it is loaded fails in all of them."""
    common = {"now_unix_seconds": battery.NOW_UNIX_SECONDS} | battery.SPECIAL_TOKENS
    lines = [json.dumps(common | {"template": template, "cases": cases}) for template, cases in tasks]
    run = subprocess.run(
        [RENDERER], input="\n".join(lines), capture_output=True, text=True, check=True, timeout=RENDERING_TIMEOUT_S
    )
    replies = [json.loads(line) for line in run.stdout.split("\n") if line]
    assert len(replies) == len(tasks)
    return [
        [{"fails": reply["refused"]}] * len(cases) if isinstance(reply, dict) else reply
        for reply, (_, cases) in zip(replies, tasks, strict=True)
    ]


def agree(ours: dict, theirs: dict) -> bool:
    return ours == theirs or ("fails" in ours and "fails" in theirs)


def test_real_templates_render_as_in_jinja2() -> None:
    try:
        folder = llama_cpp_source() / "models" / "templates"
    except SourceUnavailable as reason:
        pytest.skip(str(reason))
    templates = {path.stem: path.read_text() for path in sorted(folder.glob("*.jinja"))}
    assert len(templates) >= 60
    cases = list(map(battery.as_served, CONVERSATIONS.values()))
    replies = rendered_by_backstop([(template, cases) for template in templates.values()])
    outcomes, differences = Counter(), []
    for (name, template), replies_of_template in zip(templates.items(), replies, strict=True):
        for conversation, case, ours in zip(CONVERSATIONS, cases, replies_of_template, strict=True):
            kind = battery.kind_of(template, case, ours)
            outcomes[kind] += 1
            if kind == "different":
                theirs = battery.render(template, case)
                differences.append(f"{name}, {conversation}:\n{ours}\ninstead of\n{theirs}")
    print(dict(outcomes))
    assert not differences, f"{len(differences)} of {outcomes.total()}:\n\n" + "\n\n".join(differences[:20])


def test_peculiarities_of_python_and_jinja2_are_the_same() -> None:
    case = {"messages": [{"role": "user", "content": "Hi"}], "arguments": VARIABLES}
    replies = rendered_by_backstop([(source, [case]) for source in SOURCES])
    different = {
        source: (ours, theirs)
        for source, (ours,) in zip(SOURCES, replies, strict=True)
        if not agree(ours, theirs := battery.render(source, case))
    }
    told = [f"{source}\n  {ours}\n  instead of {theirs}" for source, (ours, theirs) in different.items()]
    unexpected = [line for source, line in zip(different, told, strict=True) if source not in battery.DELIBERATE]
    assert not unexpected, f"{len(unexpected)} of {len(SOURCES)}:\n" + "\n".join(unexpected)
    # What is listed as deliberate must be different, or it is listed in vain.
    assert set(battery.DELIBERATE) == set(different)
