"""Conversations that real chat templates are compared on: name -> {messages, tools?, arguments?, add_generation_prompt?}."""

from chat_cases import BARE, NESTED, READ, SYSTEM, WEATHER, assistant, call, calls, result, user

ONE, TWO = "Ab3dE6gH9", "Zy8xW5vU2"
ROUND = [user("Weather in Bern?"), calls(call(ONE, "get_weather", {"city": "Bern", "days": 3})), result(ONE, "sunny, 21 C")]
PAIR = [user("Weather, and the time?"), calls(call(ONE, "get_weather", {"city": "Zürich \"HB\"\n", "days": 1}), call(TWO, "ping", {})), result(ONE, "rain ☔"), result(TWO, "pong")]
ARGUMENTS = {"filter": {"any": ["a", 1, None, True, 1.5]}, "text": "line\nbreak \"quoted\" \\ / ü <tag> & 'single'", "flag": False, "nothing": None, "ratio": 0.5}

TEMPLATE_CASES = {
    "user_only": {"messages": [user("Hi")]},
    "no_generation_prompt": {"messages": [user("Hi"), assistant("Hello!")], "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, user("Write a function.")]},
    "several_turns": {"messages": [SYSTEM, user("1 + 1?"), assistant("2"), user("And 2 + 2?"), assistant("4"), user("Thanks")]},
    "roles_do_not_alternate": {"messages": [user("Hi"), user("Are you there?")]},
    "whitespace": {"messages": [user("  two spaces\n\n\tand a tab  \n"), assistant("\n ok \n"), user("\n")]},
    "unicode": {"messages": [user("Grüße, 世界! 👩‍👩‍👧 e\u0301 \u200b \u00a0 𝒳"), assistant("Привет — “так”"), user("नमस्ते")]},
    "one_tool": {"messages": [user("Weather in Bern?")], "tools": [WEATHER]},
    "several_tools": {"messages": [SYSTEM, user("Go")], "tools": [WEATHER, READ, NESTED]},
    "tool_call": {"messages": ROUND, "tools": [WEATHER]},
    "tool_call_with_text": {"messages": [user("Weather?"), calls(call(ONE, "get_weather", {"city": "Bern"}), content="I look."), result(ONE, "sun"), assistant("Sun."), user("Thanks")], "tools": [WEATHER]},
    "tool_call_at_the_end": {"messages": ROUND[:2], "tools": [WEATHER], "add_generation_prompt": False},
    "two_calls": {"messages": PAIR, "tools": [WEATHER, READ]},
    "arguments_of_every_type": {"messages": [user("Go"), calls(call(ONE, "query", ARGUMENTS)), result(ONE, "{\"rows\": []}")], "tools": [NESTED]},
    "reasoning": {"messages": [user("1 + 1?"), assistant("2", reasoning_content="One and one."), user("2 + 2?")]},
    "reasoning_in_the_text": {"messages": [user("1 + 1?"), assistant("<think>\nOne and one.\n</think>\n\n2"), user("2 + 2?")]},
    "reasoning_before_a_call": {"messages": [user("Read a"), calls(call(ONE, "read_file", {"path": "a"}), reasoning_content="I read it."), result(ONE, "A")], "tools": [READ]},
    "thinking_on": {"messages": [user("Hi")], "arguments": {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"}},
    "thinking_off": {"messages": [user("Hi")], "arguments": {"enable_thinking": False, "thinking": False, "reasoning_effort": "low"}},
}
