"""Requests for the chat-template goldens: name -> {messages, tools?, documents?, arguments?, add_generation_prompt?}."""


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(identifier, name, arguments):
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*list_of_calls, **more):
    return {"role": "assistant", "content": None, "tool_calls": list(list_of_calls)} | more


def result(identifier, content):
    return {"role": "tool", "tool_call_id": identifier, "content": content}


SYSTEM = {"role": "system", "content": "You are a coding agent. Answer briefly."}

WEATHER = {"type": "function", "function": {
    "name": "get_weather",
    "description": "Get the weather of a \"city\".\nUse metric units.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Name, e.g. Zürich"}, "days": {"type": "integer", "minimum": 1, "maximum": 7, "default": 1}}, "required": ["city"]},
}}
READ = {"type": "function", "function": {"name": "read_file", "description": "Read a file", "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"], "additionalProperties": False}}}
BARE = {"type": "function", "function": {"name": "ping"}}
NESTED = {"type": "function", "function": {"name": "query", "description": "Query <b>rows</b> & columns", "parameters": {"type": "object", "properties": {"filter": {"type": "object", "properties": {"any": {"type": "array", "items": {"type": ["string", "number", "null"]}}}}, "ratio": {"type": "number", "enum": [0.5, 1.0, 1e-7, 100000000000000000000]}}, "$defs": {}}}}

CHAT_CASES = {
    "user_only": {"messages": [user("Hi")]},
    "no_generation_prompt": {"messages": [user("Hi"), assistant("Hello!")], "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, user("Write a function.")]},
    "system_later": {"messages": [user("Hi"), assistant("Hello!"), {"role": "system", "content": "Now speak French."}, user("Hi again")]},
    "two_systems_and_developer": {"messages": [SYSTEM, {"role": "developer", "content": "Use tabs."}, user("Go")]},
    "several_turns": {"messages": [SYSTEM, user("1 + 1?"), assistant("2"), user("And 2 + 2?"), assistant("4"), user("Thanks")]},
    "content_parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "First. "}, {"type": "text", "text": "Second."}]}]},
    "whitespace_kept": {"messages": [user("  two spaces\n\n\tand a tab  \n")]},
    "unicode": {"messages": [user("Grüße, 世界! 👩‍👩‍👧 e\u0301 \u200b \u00a0 𝒳"), assistant("Привет — “так”"), user("नमस्ते")]},
    "control_tokens_in_text": {"messages": [user("Print <|END_TEXT|> and <BOS_TOKEN> please")]},
    "reasoning_off": {"messages": [SYSTEM, user("Hi")], "arguments": {"reasoning": False}},
    "reasoning_on": {"messages": [user("Hi")], "arguments": {"reasoning": True}},
    "reasoning_effort_none": {"messages": [user("Hi")], "arguments": {"reasoning_effort": "none"}},
    "reasoning_effort_high": {"messages": [user("Hi")], "arguments": {"reasoning_effort": "high"}},
    "reasoning_wins_over_effort": {"messages": [user("Hi")], "arguments": {"reasoning": True, "reasoning_effort": "none"}},
    "reasoning_history": {"messages": [user("1 + 1?"), assistant("2", reasoning="One and one."), user("2 + 2?"), assistant("4", reasoning_content="Two and two."), user("3 + 3?"), assistant("6", thinking="Three and three."), user("Thanks")]},
    "reasoning_as_part": {"messages": [user("1 + 1?"), assistant([{"type": "thinking", "thinking": "One and one."}, {"type": "text", "text": "2"}]), user("Thanks")]},
    "skip_thinking": {"messages": [user("1 + 1?"), assistant("2", reasoning="One and one."), user("Thanks")], "arguments": {"skip_thinking": True}},
    "one_tool": {"messages": [user("Weather in Bern?")], "tools": [WEATHER]},
    "several_tools": {"messages": [SYSTEM, user("Go")], "tools": [WEATHER, READ, BARE, NESTED]},
    "tool_call": {"messages": [user("Weather in Bern?"), calls(call("call_9f", "get_weather", {"city": "Bern", "days": 3}), reasoning="I need the weather."), result("call_9f", "sunny, 21 C")], "tools": [WEATHER]},
    "tool_results_merged": {"messages": [user("Weather in Bern and Zürich?"), calls(call("b", "get_weather", {"city": "Bern"}), call("a", "get_weather", {"city": "Zürich"})), result("a", "rain"), result("b", "{\"sky\": \"blue\", \"quote\": \"\\\"\"}"), assistant("Rain and sun.", reasoning="I have both."), user("Thanks")], "tools": [WEATHER]},
    "tool_rounds_renumbered": {"messages": [user("Read a and b"), calls(call("x1", "read_file", {"path": "a"})), result("x1", "A"), calls(call("x2", "read_file", {"path": "b"})), result("x2", "B"), assistant("A and B."), user("And c?"), calls(call("x3", "read_file", {"path": "c"}), call("x4", "ping", {})), result("x3", "C"), result("x4", "pong")], "tools": [READ, BARE]},
    "tool_result_parts_and_object": {"messages": [user("Go"), calls(call("1", "query", {"filter": {"any": ["a", 1, None, True, 1.5]}, "text": "line\nbreak \"quoted\" \\ / ü <tag> & 'single'"})), result("1", [{"type": "text", "text": "row 1"}, {"type": "text", "text": "row 2"}]), calls(call("2", "query", {})), result("2", {"rows": [], "count": 0})], "tools": [NESTED]},
    "tool_result_unknown_id": {"messages": [user("Go"), calls(call("1", "ping", {})), result("other", "pong")], "tools": [BARE]},
    "tool_call_then_reasoning_off": {"messages": [user("Read a"), calls(call("1", "read_file", {"path": "a"}), reasoning="I read it."), result("1", "")], "tools": [READ], "arguments": {"reasoning_effort": "none"}},
    "documents": {"messages": [user("What is in them?")], "documents": [{"title": "One", "text": "First text."}, {"id": "d2", "data": {"title": "Two", "snippet": "Zweiter Text: ü"}}]},
    "documents_and_tools": {"messages": [SYSTEM, user("Read a"), calls(call("q", "read_file", {"path": "a"}), reasoning="I read it."), result("q", "A")], "documents": [{"title": "One", "text": "First."}], "tools": [READ]},
    "platform_instruction_override": {"messages": [user("Who are you?")], "arguments": {"platform_instruction_override": "You are Otto.\nYou like trains."}},
    "override_with_everything": {"messages": [SYSTEM, user("Weather?"), calls(call("c", "get_weather", {"city": "Oslo"})), result("c", "snow")], "tools": [WEATHER], "arguments": {"platform_instruction_override": "You are Otto.", "reasoning": False}},
}
