"""Conversations that every template of the battery renders: name -> {messages, tools?, documents?, arguments?,
add_generation_prompt?}. Each shows something that templates disagree on, or that Python writes in its own way."""

from chat_cases import BARE, NESTED, READ, SYSTEM, WEATHER, assistant, call, calls, result, user
from template_cases import TEMPLATE_CASES

ONE, TWO, THREE = "Ab3dE6gH9", "Zy8xW5vU2", "Qw7eR4tY1"
DEVELOPER = {"role": "developer", "content": "Use tabs."}
ASK = user("Weather in Bern?")
NUMBERS = {"float": 1.0, "small": 1e-05, "tiny": 1.5e-07, "large": 1e16, "huge": 1.5e300, "negative": -0.5, "integer": -7, "zero": 0, "wide": 12345678901234567890}
TRUTHS = {"yes": True, "no": False, "nothing": None}
NESTING = {"list": [1, [2.5, ["three", None]], {"a": {"b": []}}], "object": {"k": {"true": True, "float": 0.1, "empty": {}}}}
TEXTS = {"quotes": "it's \"quoted\" \\ and \\n", "lines": "one\ntwo\r\n\tthree", "unicode": "Zürich 世界 👩‍👩‍👧 \u200b\u00a0\u0301", "markup": "<b>&amp;</b> {{ x }} {% y %}", "empty": "", "spaces": "  x  "}
TYPED = {"type": "function", "function": {
    "name": "typed",
    "description": "Every type,\nwith 'quotes' and \"more\" – <tag> & ünïcödé.",
    "strict": True,
    "parameters": {"type": "object", "required": ["text", "number"], "additionalProperties": False, "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number", "minimum": -1.5, "maximum": 1e-05}}}}, "properties": {
        "text": {"type": "string", "description": "A text", "enum": ["a", "b's", "\"c\""], "default": "a", "minLength": 1},
        "number": {"type": "number", "default": 0.5, "exclusiveMinimum": 1e-07, "maximum": 1e+22},
        "integer": {"type": "integer", "enum": [1, 2, 3], "default": None},
        "flag": {"type": "boolean", "default": True},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "or null"},
        "several": {"type": ["string", "integer", "null"]},
        "items": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}}}, "required": ["a"]}, "minItems": 1},
        "object": {"type": "object", "properties": {"deep": {"type": "object", "properties": {"deeper": {"$ref": "#/$defs/point"}}}}},
        "anything": {},
    }},
}}
RETURNING = {"type": "function", "function": {"name": "returning", "description": "d", "parameters": {"type": "object", "properties": {}}, "return": {"type": "string", "description": "A text"}}}
DOCUMENTS = [{"title": "Bern's \"history\"", "text": "Founded in 1191.\nOld."}, {"title": "Zürich", "text": "Größer – 世界", "year": 1.0, "tags": ["a", None]}]


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


def round_of(arguments, answer="sunny", **more):
    return [ASK, calls(call(ONE, "get_weather", arguments), **more), result(ONE, answer)]


def thought(text, reasoning, **more):
    return assistant(text, reasoning_content=reasoning, **more)


CONVERSATIONS = {f"golden: {name}": case for name, case in TEMPLATE_CASES.items()} | {
    "developer": {"messages": [DEVELOPER, user("Go")]},
    "developer_and_tools": {"messages": [DEVELOPER, ASK], "tools": [WEATHER]},
    "late_system": {"messages": [user("Hi"), assistant("Hello!"), SYSTEM, user("Hi again")]},
    "empty_contents": {"messages": [{"role": "system", "content": ""}, user(""), assistant(""), user("x")]},
    "null_content": {"messages": [user("Hi"), assistant(None), user("x")]},
    "null_content_beside_calls": {"messages": round_of({"city": "Bern"}), "tools": [WEATHER], "keeps_null": True},
    "quotes_and_lines": {"messages": [{"role": "system", "content": TEXTS["quotes"]}, user(TEXTS["lines"]), assistant(TEXTS["markup"]), user(TEXTS["unicode"])]},
    "text_parts_of_user": {"messages": [user(parts("First.", " Then.", "Last.\n"))]},
    "one_text_part_everywhere": {"messages": [{"role": "system", "content": parts("S.")}, user(parts("U.")), assistant(parts("A.")), user(parts("V."))]},
    "text_parts_of_system": {"messages": [{"role": "system", "content": parts("Instruction.", "Addition.")}, user("Hi")]},
    "text_parts_of_tool": {"messages": round_of({"city": "Bern"}, parts("first row", "second line")), "tools": [WEATHER]},
    "text_parts_of_assistant": {"messages": [user("Hi"), assistant(parts("Answer.", "Remark.")), user("Go on")]},
    "tool_result_object_text": {"messages": round_of({"city": "Bern"}, '{"sky": "blue", "t": 21.0, "q": "\\""}'), "tools": [WEATHER]},
    "tool_result_empty": {"messages": round_of({"city": "Bern"}, ""), "tools": [WEATHER]},
    "tool_result_with_name": {"messages": [*round_of({"city": "Bern"})[:2], result(ONE, "sun") | {"name": "get_weather"}], "tools": [WEATHER]},
    "arguments_as_text": {"messages": round_of('{"city": "Zürich", "days": 1.0, "deep": {"a": [1e-05, null, true]}}'), "tools": [WEATHER]},
    "arguments_empty": {"messages": round_of({}), "tools": [WEATHER]},
    "arguments_numbers": {"messages": round_of(NUMBERS), "tools": [WEATHER]},
    "arguments_truths": {"messages": round_of(TRUTHS), "tools": [WEATHER]},
    "arguments_nested": {"messages": round_of(NESTING), "tools": [WEATHER]},
    "arguments_texts": {"messages": round_of(TEXTS), "tools": [WEATHER]},
    "arguments_single_float": {"messages": round_of({"t": 1e-05}), "tools": [WEATHER]},
    "typed_tool": {"messages": [ASK], "tools": [TYPED]},
    "typed_tools_and_system": {"messages": [SYSTEM, ASK], "tools": [TYPED, NESTED, BARE, RETURNING, READ]},
    "bare_tool": {"messages": [ASK], "tools": [BARE]},
    "three_parallel_calls": {"messages": [ASK, calls(call(ONE, "get_weather", {"city": "Bern"}), call(TWO, "ping", {}), call(THREE, "query", NESTING)), result(ONE, "1"), result(TWO, "2"), result(THREE, "3")], "tools": [WEATHER, BARE, NESTED]},
    "results_in_another_order": {"messages": [ASK, calls(call(ONE, "get_weather", {"city": "Bern"}), call(TWO, "ping", {})), result(TWO, "2"), result(ONE, "1")], "tools": [WEATHER, BARE]},
    "several_rounds": {"messages": [SYSTEM, *round_of({"city": "Bern"}), assistant("Sun."), user("And in Rom?"), calls(call(TWO, "get_weather", {"city": "Rom"})), result(TWO, "rain"), assistant("Rain."), user("Thanks")], "tools": [WEATHER]},
    "calls_without_offered_tools": {"messages": [*round_of({"city": "Bern"}), assistant("Sun."), user("Thanks")]},
    "call_with_text_and_reasoning": {"messages": round_of({"city": "Bern"}, content="I look.", reasoning_content="They want weather."), "tools": [WEATHER]},
    "reasoning_of_every_turn": {"messages": [user("1?"), thought("One.", "A"), user("2?"), thought("Two.", "B\n\nC"), user("3?")]},
    "reasoning_within_a_round": {"messages": [ASK, calls(call(ONE, "ping", {}), reasoning_content="First."), result(ONE, "1"), calls(call(TWO, "ping", {}), reasoning_content="Second."), result(TWO, "2")], "tools": [BARE]},
    "reasoning_empty": {"messages": [user("1?"), thought("One.", ""), user("2?")]},
    "thinking_variables": {"messages": [SYSTEM, user("Hi")], "arguments": {"enable_thinking": True, "thinking": True, "reasoning_effort": "medium", "thinking_budget": 512, "clear_thinking": False, "preserve_thinking": True}},
    "thinking_off_with_history": {"messages": [user("1?"), thought("One.", "A"), user("2?")], "arguments": {"enable_thinking": False, "thinking": False, "thinking_mode": "off"}},
    "documents": {"messages": [user("How old is Bern?")], "documents": DOCUMENTS},
    "documents_and_tools": {"messages": [SYSTEM, user("How old is Bern?")], "documents": DOCUMENTS, "tools": [WEATHER]},
    "dates": {"messages": [SYSTEM, ASK], "tools": [WEATHER], "arguments": {"date_string": "26 Jul 2024", "current_date": "2024-07-26", "knowledge_cutoff": "2024-06"}},
    "options": {"messages": [SYSTEM, ASK], "tools": [WEATHER], "arguments": {"custom_tools": None, "builtin_tools": ["wolfram_alpha"], "tools_in_user_message": False, "model_identity": "You are Ünï.", "keep_past_thinking": True, "add_vision_id": True}},
    "ends_with_assistant": {"messages": [user("Count"), assistant("1, 2,")], "add_generation_prompt": False},
    "ends_with_assistant_and_prompt": {"messages": [user("Count"), assistant("1, 2,")]},
    "ends_with_tool": {"messages": round_of({"city": "Bern"}), "tools": [WEATHER], "add_generation_prompt": False},
    "only_system": {"messages": [SYSTEM]},
    "named_user": {"messages": [user("Hi") | {"name": "ann"}, assistant("Hello, Ann!"), user("Bye") | {"name": "ann"}]},
    "unknown_role": {"messages": [user("Hi"), {"role": "critic", "content": "Too short."}]},
    "two_assistants": {"messages": [user("Hi"), assistant("A"), assistant("B"), user("C")]},
    "long_ids": {"messages": [ASK, calls(call("call_0123456789abcdef", "ping", {})), result("call_0123456789abcdef", "pong")], "tools": [BARE]},
}
