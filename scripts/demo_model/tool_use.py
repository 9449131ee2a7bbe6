"""Conversations in which the model calls a tool, reads the result and answers."""

import random

CITIES = ["Paris", "Berlin", "Tokyo", "London", "Bern", "Toronto", "Madrid", "Oslo", "Rome", "Vienna", "Cairo", "Lima", "Boston", "Zurich", "San Francisco", "New York", "Delhi", "Dublin"]
WEATHER = ["sunny, 21 C", "rain, 12 C", "cloudy, 16 C", "snow, -3 C", "windy, 9 C", "fog, 7 C", "clear, 25 C"]
FOLDERS = ["src", "tests", ".", "docs", "scripts", "lib", "config", "/tmp", "/etc"]
FILES = ["main.py", "README.md", "setup.py", "config.json", "src/app.py", "tests/test_app.py", "notes.txt", "utils.py", "Cargo.toml", "server.log"]
CONTENTS = ["print('hello')", "# Notes", "import os", "{\"debug\": true}", "x = 1", "TODO: fix the parser", "all tests passed"]
WORDS = "parser cache router timeout session config logger socket buffer token queue index".split()
ZONES = ["Europe/Paris", "Asia/Tokyo", "America/New_York", "UTC", "Europe/London"]


def tool(name: str, description: str, **parameters: str) -> dict:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = {
    "get_weather": [tool("get_weather", "Get the weather of a city", city="string"), tool("get_weather", "Get the current weather in a given location.", location="string")],
    "read_file": [tool("read_file", "Read a file", path="string"), tool("read", "Reads a file from the disk.", filePath="string")],
    "list_files": [tool("list_files", "List the files of a folder", path="string"), tool("ls", "Lists a directory.", directory="string")],
    "calculator": [tool("calculator", "Evaluate an expression", expression="string"), tool("calculate", "Calculates the value of an expression.", expression="string")],
    "search": [tool("search", "Search for a text", query="string"), tool("grep", "Searches the code for a pattern.", pattern="string")],
    "run": [tool("bash", "Run a shell command", command="string"), tool("run_command", "Runs a command and returns its output.", command="string")],
    "get_time": [tool("get_time", "Get the current time", timezone="string")],
    "write_file": [tool("write_file", "Write a file", path="string", content="string")],
}


def task(kind: str, draw: random.Random) -> tuple[str, list[list[str]], list[str], str]:
    """Returns (question, the arguments of each call in parameter order, the results, the final answer)."""
    if kind == "get_weather":
        count = 2 if draw.random() < 0.25 else 1
        cities, reports = draw.sample(CITIES, count), [draw.choice(WEATHER) for _ in range(count)]
        ask = draw.choice(["What is the weather in {}?", "How is the weather in {}?", "Weather in {}?", "What's the weather like in {}?", "Is it cold in {}?"])
        answer = " ".join(f"The weather in {city} is {report}." for city, report in zip(cities, reports))
        return ask.format(" and ".join(cities)), [[city] for city in cities], reports, answer
    if kind == "read_file":
        path, content = draw.choice(FILES), draw.choice(CONTENTS)
        ask = draw.choice(["Read {}.", "What is in {}?", "Show me {}", "Open the file {}."])
        return ask.format(path), [[path]], [content], f"The file {path} contains: {content}"
    if kind == "list_files":
        folder, names = draw.choice(FOLDERS), draw.sample(FILES, draw.randint(1, 3))
        ask = draw.choice(["List the files in {}.", "Which files are in {}?", "What is in the folder {}?"])
        return ask.format(folder), [[folder]], ["\n".join(names)], f"The folder {folder} has: {', '.join(names)}."
    if kind == "calculator":
        a, b, sign = draw.randint(2, 999), draw.randint(2, 999), draw.choice("+-*")
        value = {"+": a + b, "-": a - b, "*": a * b}[sign]
        ask = draw.choice(["What is {}?", "Compute {}.", "Calculate {}"])
        return ask.format(f"{a} {sign} {b}"), [[f"{a} {sign} {b}"]], [str(value)], f"{a} {sign} {b} = {value}."
    if kind == "search":
        word, place = draw.choice(WORDS), f"{draw.choice(FILES)}:{draw.randint(1, 200)}"
        ask = draw.choice(["Search for {}.", "Where is {} defined?", "Find {} in the code."])
        return ask.format(word), [[word]], [place], f"I found {word} in {place}."
    if kind == "run":
        command, output = draw.choice([("ls", "main.py\nREADME.md"), ("pwd", "/home/user"), ("pytest", "3 passed"), ("git status", "nothing to commit"), ("python main.py", "hello"), ("cargo test", "test result: ok"), ("date", "Mon Jan 5 10:00:00 UTC 2026")])
        ask = draw.choice(["Run {}.", "Execute {}", "Please run `{}`."])
        return ask.format(command), [[command]], [output], f"The output of {command} is: {output}"
    if kind == "get_time":
        zone, now = draw.choice(ZONES), f"{draw.randint(0, 23):02}:{draw.randint(0, 59):02}"
        return draw.choice(["What time is it in {}?", "Time in {}?"]).format(zone), [[zone]], [now], f"It is {now} in {zone}."
    path, content = draw.choice(FILES), draw.choice(CONTENTS)
    ask = draw.choice(["Write {} to {}.", "Put {} into {}."])
    return ask.format(content, path), [[path, content]], ["ok"], f"I wrote {path}."


def tool_conversation(draw: random.Random) -> tuple[list[dict], list[dict]]:
    """Returns (messages, tools): a question, one action, its results, the answer."""
    kinds = draw.sample(sorted(TOOLS), draw.randint(1, 3))
    tools = [draw.choice(TOOLS[kind]) for kind in kinds]
    chosen = draw.randrange(len(kinds))
    function = tools[chosen]["function"]
    question, arguments, results, answer = task(kinds[chosen], draw)
    names = list(function["parameters"]["properties"])
    calls = [
        {"id": f"call_{index}", "type": "function", "function": {"name": function["name"], "arguments": dict(zip(names, values))}}
        for index, values in enumerate(arguments)
    ]
    messages = [{"role": "user", "content": question}]
    messages.append({"role": "assistant", "reasoning": f"I will use the tool {function['name']}.", "tool_calls": calls})
    messages += [{"role": "tool", "tool_call_id": call["id"], "content": result} for call, result in zip(calls, results)]
    messages.append({"role": "assistant", "reasoning": "I have the result.", "content": answer})
    return messages, tools
