"""Writes tests/goldens/templates/conversations.json and, beside each template there, its renderings.

    python scripts/goldens/make_template_goldens.py [FOLDER]

FOLDER holds the templates (*.jinja); by default those that are committed. Only what transformers' apply_chat_template
makes of a template counts: where it raises an error, the golden is that the template fails, with the template's own
message if it is one.

Messages that only call tools have null as their content. The server puts an empty string there before a template
sees them, so that is what the templates are given here.
"""

import datetime
import json
import sys
from pathlib import Path

import jinja2
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from template_cases import TEMPLATE_CASES

ROOT = Path(__file__).resolve().parents[2]


class FixedClock(datetime.datetime):
    """What `strftime_now` reads."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(1_762_000_000, datetime.timezone.utc)


chat_template_utils.datetime = FixedClock


def request_of(case: dict) -> dict:
    return {"messages": case["messages"], "tools": case.get("tools"), "arguments": case.get("arguments", {}),
            "add_generation_prompt": case.get("add_generation_prompt", True)}


def without_null(message: dict) -> dict:
    return message | {"content": ""} if message["content"] is None else message


def render(tokenizer, template: str, request: dict) -> dict:
    def once(messages):
        return tokenizer.apply_chat_template(
            messages, tools=request["tools"], chat_template=template, tokenize=False,
            add_generation_prompt=request["add_generation_prompt"], **request["arguments"],
        )

    try:
        return {"text": once([without_null(message) for message in request["messages"]])}
    except Exception as error:
        return {"raises": str(error)} if type(error) is jinja2.exceptions.TemplateError else {"fails": True}


def main(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ROOT / "models" / "demo")
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    requests = {name: request_of(case) for name, case in TEMPLATE_CASES.items()}
    write = lambda path, value: path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    write(folder / "conversations.json", requests)
    for path in sorted(folder.glob("*.jinja")):
        template = path.read_text()
        write(path.with_suffix(".json"), {name: render(tokenizer, template, request) for name, request in requests.items()})
        print(path.stem)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "goldens" / "templates")
