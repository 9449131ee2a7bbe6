"""What jinja2 makes of chat templates, with the settings that transformers gives it, and what Backstop may make of them.

    python scripts/goldens/template_battery.py FOLDER

prints what each template (*.jinja) in FOLDER makes of the conversations. `tests/python/test_template_battery.py`
compares Backstop with it.

Conversations reach a template as `apply_chat_template` gives them, with two differences that servers of chats make:
arguments of calls that are JSON text are parsed, and no content at all is an empty text.
"""

import copy
import datetime
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW_UNIX_SECONDS = 1_762_000_000
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

# Says of a message that its reasoning does not go by the name `thinking`.
WITHHELD = "thinking_is_withheld"

Rendered = dict[str, str]
Change = Callable[[dict], None]


class GenerationBlocks(jinja2.ext.Extension):
    """`{% generation %}`, which marks what to train on."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(format):
    return datetime.datetime.fromtimestamp(NOW_UNIX_SECONDS, datetime.timezone.utc).strftime(format)


@lru_cache
def compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return environment.from_string(template)


def render(template: str, case: dict) -> Rendered:
    """The text, or else why there is none: in the template's words (`raises`), or in Python's (`fails`)."""
    try:
        text = compiled(template).render(
            messages=[with_names_of_reasoning(message) for message in case["messages"]],
            tools=case.get("tools"),
            documents=case.get("documents"),
            add_generation_prompt=case.get("add_generation_prompt", True),
            **SPECIAL_TOKENS | case.get("arguments", {}),
        )
    except Exception as error:
        is_own = type(error) is jinja2.exceptions.TemplateError
        return {"raises": str(error)} if is_own else {"fails": f"{type(error).__name__}: {error}"}
    return {"text": text}


def with_names_of_reasoning(message: dict) -> dict:
    found = (message[name] for name in ("reasoning_content", "thinking", "reasoning") if message.get(name) is not None)
    reasoning = next(found, None)
    if reasoning is None:
        return message
    named = {} if message.get(WITHHELD) else {"thinking": reasoning}
    return {**named, **message, "reasoning_content": reasoning}


def as_served(case: dict) -> dict:
    """The case as a server of chats gives it to templates."""
    case = copy.deepcopy(case)
    for message in case["messages"]:
        if message["content"] is None and not case.get("keeps_null"):
            message["content"] = ""
        for call in message.get("tool_calls", []):
            if isinstance(call["function"]["arguments"], str):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return case


# What Backstop changes in a conversation for templates that would drop or refuse something of it.


def parts_joined(case: dict) -> None:
    for message in case["messages"]:
        if isinstance(message["content"], list):
            message["content"] = "\n".join(part["text"] for part in message["content"])


def texts_as_parts(case: dict) -> None:
    for message in case["messages"]:
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]


def null_beside_calls(case: dict) -> None:
    for message in case["messages"]:
        if message["content"] == "" and message.get("tool_calls"):
            message["content"] = None


def no_thinking_beside_calls(case: dict) -> None:
    for message in case["messages"]:
        if message.get("tool_calls") and message["content"]:
            message[WITHHELD] = True


def short_ids(case: dict) -> None:
    for message in case["messages"]:
        if "tool_call_id" in message:
            message["tool_call_id"] = short_id(message["tool_call_id"])
        for call in message.get("tool_calls", []):
            call["id"] = short_id(call["id"])


def short_id(identifier: str) -> str:
    """Nine letters and digits of the FNV-1a hash of an id that is not of that form."""
    if len(identifier) == 9 and identifier.isascii() and identifier.isalnum():
        return identifier
    number = 0xCBF29CE484222325
    for byte in identifier.encode():
        number = (number ^ byte) * 0x100000001B3 % 2**64
    digits = []
    for _ in range(9):
        number, digit = divmod(number, 36)
        digits.append("0123456789abcdefghijklmnopqrstuvwxyz"[digit])
    return "".join(digits)


CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (parts_joined, texts_as_parts, null_beside_calls, no_thinking_beside_calls, short_ids)
}


def changed(case: dict) -> Iterator[tuple[tuple[str, ...], dict]]:
    """The case with each set of changes, the smallest first; none at all is the first."""
    for count in range(len(CHANGES) + 1):
        for names in itertools.combinations(CHANGES, count):
            other = copy.deepcopy(case)
            for name in names:
                CHANGES[name](other)
            yield names, other


def words_of(value: object) -> Iterator[str]:
    """What a conversation says, in pieces that templates write as they are."""
    if isinstance(value, str):
        yield from value.split()
    elif isinstance(value, list):
        for item in value:
            yield from words_of(item.get("text", "") if isinstance(item, dict) else item)


def is_whole(rendered: Rendered, case: dict) -> bool:
    """Whether a text has all that messages and calls say, each as the conversation has it."""
    text = rendered.get("text")
    if text is None or "'type': 'text'" in text or '"type": "text"' in text:
        return False
    said = [word for message in case["messages"] for word in words_of(message["content"])]
    called = [call["function"]["name"] for message in case["messages"] for call in message.get("tool_calls", [])]
    return all(piece in text for piece in said + called)


def kind_of(template: str, case: dict, ours: Rendered) -> str:
    """How Backstop's rendering is related to jinja2's: `the same`; of a case that jinja2 refuses or of which it leaves
    something out, the same as jinja2's of a case with some changes, which are named; or else `different`."""
    theirs = render(template, case)
    if ours == theirs or ("fails" in ours and "fails" in theirs):
        return "the same"
    if is_whole(theirs, case):
        return "different"
    for names, other in changed(case):
        if names and ours == render(template, other):
            return " and ".join(names)
    return "different"


IDENTITIES = "addresses in memory are not shown"
VIEWS = "what can only be gone through can be so more than once, and `range` and `reverse` are lists"
UNAVAILABLE = "no template needs it: refused when it is loaded"
CONSTANTS = "the engine puts constants together when the template is loaded, and has an order for all of them"
# Small templates that Backstop renders otherwise, and why.
DELIBERATE = {
    "{{ range(3) }}": VIEWS,
    "{{ range(3) is sequence }}": VIEWS,
    "{{ l|reverse }}": VIEWS,
    "{{ d.keys()[0] }}": VIEWS,
    "{% set x = rows|selectattr('g', 'equalto', 1) %}{{ x|list|length }}{{ x|list|length }}": VIEWS,
    "{% set x = l|map('string') %}{{ x|first }}{{ x|list }}": VIEWS,
    "{{ d.items }}": IDENTITIES,
    "{{ s|attr('upper') }}": IDENTITIES,
    "{{ self }}": IDENTITIES,
    "{{ 1 < 'a' }}": CONSTANTS,
    "{{ 1e-05 ~ '' }}": CONSTANTS,
    "{{ none < none }}": CONSTANTS,
    "{{ 1 in 'abc' }}": CONSTANTS,
    "{{ mixed|sort }}": "values of different types have an order here",
    "{{ rows|groupby(attribute='g')|list }}": "groups are written as lists, not as tuples",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m is callable }}": "names of arguments are a list",
    "{{ l[1.0] }}": "a whole number counts as an integer",
    "{% do l.copy() %}x": "jinja2 has it as an extension that transformers leaves out",
    "{{ s|truncate(5, true, '') }}": UNAVAILABLE,
    "{{ 'a b'|urlencode }}": UNAVAILABLE,
    "{{ '<b>x</b> y'|striptags }}": UNAVAILABLE,
    "{{ l|batch(2)|list }}": UNAVAILABLE,
    "{{ l|slice(2)|list }}": UNAVAILABLE,
    "{{ d|pprint }}": UNAVAILABLE,
    "{{ 1000000|filesizeformat }}": UNAVAILABLE,
    "{{ 'hello world foo'|wordwrap(5) }}": UNAVAILABLE,
    "{{ {'a': 1}|xmlattr }}": UNAVAILABLE,
    "{{ cycler('a', 'b').next() }}": UNAVAILABLE,
    "{% set j = joiner('|') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}": UNAVAILABLE,
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}": UNAVAILABLE,
    "{{ lipsum is defined }}": UNAVAILABLE,
    "{{ +i }}": UNAVAILABLE,
    "{{ dict([('a', 1)]) }}": "fails: pairs do not become a map",
    "{{ '{:%}'.format(0.5) }}": "fails: percentages are not written",
    "{{ strftime_now('%V') }}": "fails: weeks of ISO 8601 are not written",
}


def main(folder: Path) -> None:
    from battery_conversations import CONVERSATIONS

    for path in sorted(folder.glob("*.jinja")):
        template = path.read_text()
        for name, case in CONVERSATIONS.items():
            print(json.dumps([path.stem, name, render(template, as_served(case))], ensure_ascii=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
