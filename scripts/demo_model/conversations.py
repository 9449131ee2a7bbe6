"""Builds the chat part of the corpus and renders it with the model's own template."""

import json
import random
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment

from classic_functions import CLASSIC_FUNCTIONS
from small_talk import SYSTEM_PROMPTS, exchange
from source_files import documented_functions
from tool_use import TOOLS, tool_conversation

MODEL_FOLDER = Path(__file__).resolve().parents[2] / "models" / "demo"
CHATBOT_PREFIX = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
NO_THINKING = "<|START_THINKING|><|END_THINKING|>"


def template():
    """The chat template under the same jinja2 settings as transformers uses."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    return environment.from_string((MODEL_FOLDER / "chat_template.jinja").read_text())


def code_answer(code: str, lead: str) -> str:
    return f"{lead}\n```python\n{code}\n```"


def lower_first(text: str) -> str:
    return text[0].lower() + text[1:] if text[1:2].islower() else text


def library_exchange(function: dict, draw: random.Random) -> tuple[str, str, str]:
    name, summary = function["name"], function["summary"]
    form = draw.randrange(5)
    if form == 0:
        question = f"Write a Python function `{name}`. {summary}"
    elif form == 1:
        question = f"Write a Python function that does this: {lower_first(summary)}"
    elif form == 2:
        question = f"Complete this function:\n```python\n{function['header']}\n```"
    elif form == 3:
        question = f"Show me the code of `{name}`."
    else:
        question = f"What does this function do?\n```python\n{function['code']}\n```"
        return question, f"`{name}`: {summary}", f"The user asks about `{name}`."
    return question, code_answer(function["code"], f"Here is `{name}`:"), f"The user wants the function `{name}`."


def classic_exchange(draw: random.Random) -> tuple[str, str, str]:
    name, action, code = draw.choice(CLASSIC_FUNCTIONS)
    plain = name.replace("_", " ")
    question = draw.choice([
        f"Write a Python function that {action}.", f"Write a function that {action}", f"write a python function that {action}",
        f"Write a Python function `{name}`.", f"Write a function {name} that {action}.", f"Write {plain} in Python.",
        f"Give me a Python function that {action}.", f"Can you write a function that {action}?", f"Implement {plain} in Python.",
        f"Please write Python code that {action}.", f"How do I write a function that {action}?", f"Write {plain} in Python",
    ])
    return question, code_answer(code, f"Here is a function that {action}:"), f"The user wants a function that {action}."


def exchanges_to_messages(exchanges: list[tuple[str, str, str]]) -> list[dict]:
    messages = []
    for question, answer, thought in exchanges:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "reasoning": thought, "content": answer})
    return messages


def render(messages: list[dict], tools: list[dict], draw: random.Random, chat_template) -> str:
    """Renders a conversation as the server would have built it up, with or without reasoning."""
    if draw.random() < 0.3:
        messages = [{"role": "system", "content": draw.choice(SYSTEM_PROMPTS)}] + messages
    mode = draw.random()
    last = len(messages) - 1
    if mode < 0.35:  # Many clients do not send the earlier reasoning back.
        messages = [m if i == last else {k: v for k, v in m.items() if k != "reasoning"} for i, m in enumerate(messages)]
    if mode < 0.20:  # Reasoning switched off: the prompt ends with an empty thinking block.
        messages = messages[:last] + [{k: v for k, v in messages[last].items() if k != "reasoning"}]
    text = chat_template.render(messages=messages, tools=tools, bos_token="<BOS_TOKEN>", add_generation_prompt=False)
    if mode < 0.20:
        head, prefix, tail = text.rpartition(CHATBOT_PREFIX)
        text = head + prefix + NO_THINKING + tail
    return text


def conversation(draw: random.Random, functions: list[dict]) -> tuple[list[dict], list[dict]]:
    """Draws one conversation: (messages, tools)."""
    kind = draw.random()
    some_tools = [draw.choice(TOOLS[name]) for name in draw.sample(sorted(TOOLS), 2)] if draw.random() < 0.15 else []
    if kind < 0.34:
        return exchanges_to_messages([exchange(draw) for _ in range(draw.choice([1, 1, 1, 2, 3]))]), some_tools
    if kind < 0.52:
        return exchanges_to_messages([classic_exchange(draw) for _ in range(draw.choice([1, 1, 2]))]), some_tools
    if kind < 0.72:
        messages, tools = tool_conversation(draw)
        return (messages if draw.random() < 0.6 else messages[:2]), tools
    return exchanges_to_messages([library_exchange(draw.choice(functions), draw)]), some_tools


def conversations(files: list[tuple[str, str]], count: int, seed: int) -> list[str]:
    """`count` rendered conversations; the functions come from `files` alone."""
    functions = [function for _, text in files for function in documented_functions(text)]
    draw = random.Random(seed)
    chat_template = template()
    return [render(*conversation(draw, functions), draw, chat_template) for _ in range(count)]
