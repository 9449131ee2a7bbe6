"""Model outputs for the parser goldens: name -> text. They begin inside the thinking block unless they open one, and
end before the end-of-turn token, which the server takes off.

`pieces()` cuts a text the way a stream would: at the model's control tokens, and the rest by a seeded size.
"""

import random
import re

THINK, TEXT, ACTION = "<|END_THINKING|>", "<|START_TEXT|>", "<|START_ACTION|>"
TEXT_END, ACTION_END, OPEN = "<|END_TEXT|>", "<|END_ACTION|>", "<|START_THINKING|>"


def answer(thinking: str, text: str) -> str:
    return f"{thinking}{THINK}{TEXT}{text}{TEXT_END}"


def action(body: str, thinking: str = "I will call a tool.") -> str:
    return f"{thinking}{THINK}{ACTION}{body}{ACTION_END}"


def tool(number, name: str, parameters: str) -> str:
    return f'{{"tool_call_id": "{number}", "tool_name": "{name}", "parameters": {parameters}}}'


def listed(*tools: str) -> str:
    return "[\n    " + ",\n    ".join(tools) + "\n]"


NESTED = '{"filter": {"any": ["a", {"b": [1, 2.5, null, true]}], "none": {}}, "deep": [[[]], [{"x": {"y": "z"}}]]}'
TRICKY = '{"code": "def f():\\n    return {\\"a\\": [1]}\\n", "regex": "\\\\d+[}\\\\]]", "brace": "}{][", "unicode": "\\u00fc", "raw": "ü世界"}'

MELODY_CASES = {
    "plain": answer("The user greets me.", "Hello! How can I help you?"),
    "no_thinking_text": answer("", "Hello!"),
    "opened_thinking": OPEN + answer("I think.", "Hello!"),
    "opened_and_closed_thinking": OPEN + answer("", "Hello!"),
    "starts_with_text": f"{TEXT}Hello!{TEXT_END}",
    "text_only_unmarked": "Hello! How are you?",
    "thinking_only": "I am still thinking about it",
    "thinking_only_closed": f"I have thought.{THINK}",
    "thinking_truncated_at_tag": "I think <|END_THIN",
    "text_truncated": f"Short thought.{THINK}{TEXT}Hello, this is cut of",
    "text_truncated_at_tag": f"Short thought.{THINK}{TEXT}Hello <|END_TE",
    "text_without_end_tag": f"Short thought.{THINK}{TEXT}Hello!",
    "text_without_tags": f"Short thought.{THINK}Hello!",
    "text_empty": answer("Nothing to say.", ""),
    "nothing": "",
    "leading_newlines": answer("\n\nI think.\n", "\n\nHello!\n\n"),
    "spaces_around_tags": f" I think. {THINK} {TEXT} Hello! {TEXT_END} ",
    "newline_between_tags": f"I think.{THINK}\n{TEXT}\nHello!{TEXT_END}\n",
    "long_thinking": answer("First I look at it.\n\n1. Read.\n2. Write.\n\nThen I answer. " * 6, "Done."),
    "code_block": answer("The user wants code.", "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nDone."),
    "angle_brackets_in_text": answer("x < y and <b> are fine.", "if a <| b: use <|pipe|> or <|START of it, a << 2, <|END"),
    "tags_of_other_formats": answer("Hm <think> no.", "<think>no</think> <|im_end|> <tool_call>{}</tool_call>"),
    "literal_json_in_text": answer("JSON.", '[{"tool_name": "f", "parameters": {}}]'),
    "citation_like_text": answer("Cite.", "The <co>sky</co: 0:[1]> is blue."),
    "unicode": answer("Grüße überlegen… 世界", "Привет 👩‍👩‍👧 नमस्ते e\u0301 𝒳 — “so”"),
    "replacement_character": answer("A bad byte \ufffd here.", "And \ufffd\ufffd here."),
    "two_texts": f"I think.{THINK}{TEXT}One.{TEXT_END}{TEXT}Two.{TEXT_END}",
    "thinking_twice": f"One.{THINK}{OPEN}Two.{THINK}{TEXT}Three.{TEXT_END}",
    "tool_one": action(listed(tool(0, "get_weather", '{"city": "Bern"}'))),
    "tool_no_thinking": action(listed(tool(0, "get_weather", '{"city": "Bern"}')), thinking=""),
    "tool_two": action(listed(tool(0, "get_weather", '{"city": "Bern"}'), tool(1, "get_weather", '{"city": "Paris"}'))),
    "tool_three_different": action(listed(tool(0, "a", '{"x": 1}'), tool(1, "b", '{"y": [1, 2]}'), tool(2, "c", '{"z": {"w": null}}'))),
    "tool_empty_parameters": action(listed(tool(0, "ping", "{}"))),
    "tool_empty_parameters_twice": action(listed(tool(0, "ping", "{}"), tool(1, "pong", "{ }"))),
    "tool_nested": action(listed(tool(0, "query", NESTED))),
    "tool_tricky_strings": action(listed(tool(0, "write_file", TRICKY))),
    "tool_braces_in_strings": action(listed(tool(0, "run", '{"command": "awk \'{print $1}\' | grep \\"]\\"", "n": 3}'))),
    "tool_unicode_arguments": action(listed(tool(0, "search", '{"query": "Zürich 世界 👩‍👩‍👧", "clé": "é"}'))),
    "tool_numbers": action(listed(tool(0, "calculate", '{"a": -1.5e10, "b": 0, "c": 100000000000000000000, "d": true, "e": null}'))),
    "tool_string_with_tag": action(listed(tool(0, "write_file", '{"text": "<|END_ACTIO and <|END_TEXT"}'))),
    "tool_compact_json": action('[{"tool_call_id":"0","tool_name":"f","parameters":{"a":1,"b":[2]}}]'),
    "tool_pretty_json": action('[\n  {\n    "tool_call_id": "0",\n    "tool_name": "f",\n    "parameters": {\n      "a": 1,\n      "b": [\n        2\n      ]\n    }\n  }\n]'),
    "tool_fields_in_other_order": action('[\n    {"tool_name": "f", "parameters": {"a": 1}, "tool_call_id": "0"}\n]'),
    "tool_without_id": action('[\n    {"tool_name": "f", "parameters": {"a": 1}}\n]'),
    "tool_number_as_id": action('[\n    {"tool_call_id": 0, "tool_name": "f", "parameters": {"a": 1}}\n]'),
    "tool_late_number": action(listed(tool(7, "f", '{"a": 1}'))),
    "tool_without_parameters": action('[\n    {"tool_call_id": "0", "tool_name": "f"}\n]'),
    "tool_string_parameters": action('[\n    {"tool_call_id": "0", "tool_name": "f", "parameters": "{\\"a\\": 1}"}\n]'),
    "tool_extra_field": action('[\n    {"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}, "note": "x"}\n]'),
    "tool_object_without_list": action(tool(0, "f", '{"a": 1}')),
    "tool_empty_list": action("[]"),
    "tool_nothing": action(""),
    "tool_broken_json": action('[\n    {"tool_call_id": "0", "tool_name": "f", "parameters": {"a": }}\n]'),
    "tool_not_json": action("call f with a = 1"),
    "tool_trailing_comma": action('[\n    {"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}},\n]'),
    "tool_truncated_in_name": f'I call.{THINK}{ACTION}[\n    {{"tool_call_id": "0", "tool_name": "get_wea',
    "tool_truncated_in_parameters": f'I call.{THINK}{ACTION}[\n    {{"tool_call_id": "0", "tool_name": "f", "parameters": {{"city": "Be',
    "tool_truncated_in_second": "I call." + THINK + ACTION + "[\n    " + tool(0, "f", '{"a": 1}') + ',\n    {"tool_call_id": "1", "tool_na',
    "tool_truncated_before_end_tag": f"I call.{THINK}{ACTION}" + listed(tool(0, "f", '{"a": 1}')),
    "tool_then_text": f"I call.{THINK}{ACTION}" + listed(tool(0, "f", '{"a": 1}')) + f"{ACTION_END}{TEXT}Done.{TEXT_END}",
    "text_then_tool": f"I call.{THINK}{TEXT}Let me see.{TEXT_END}{ACTION}" + listed(tool(0, "f", '{"a": 1}')) + f"{ACTION_END}",
    "tool_twice": f"I call.{THINK}{ACTION}" + listed(tool(0, "f", '{"a": 1}')) + f"{ACTION_END}{ACTION}" + listed(tool(1, "g", '{"b": 2}')) + f"{ACTION_END}",
    "tool_inside_thinking": f"I call {ACTION}" + listed(tool(0, "f", '{"a": 1}')) + f"{ACTION_END}{THINK}{TEXT}Done.{TEXT_END}",
}

CONTROL = re.compile(r"(<\|(?:START|END)_[A-Z_]+\|>)")


def pieces(name: str, text: str, longest: int) -> list[str]:
    """Control tokens come whole, as a tokenizer gives them; the text between them in pieces of 1..longest characters."""
    draw = random.Random(f"{name} {longest}")
    result = []
    for part in CONTROL.split(text):
        if CONTROL.fullmatch(part):
            result.append(part)
            continue
        while part:
            size = draw.randint(1, longest)
            result.append(part[:size])
            part = part[size:]
    return result
