"""Random requests that are out to waste time, memory or stack: schemas, grammars, expressions, bodies and texts of
hostile shapes (deep, wide, repeated), through every route that reads a body."""

import json
import random
from collections.abc import Callable
from typing import Any

MODEL = "demo"
# Sizes are drawn evenly over their logarithms, up to these.
TEXT_BYTES_MAX = 4 << 20
ITEMS_MAX = 200_000
LEVELS_MAX = 5000

Request = tuple[str, bytes]


def size(dice: random.Random, most: int) -> int:
    return max(1, int(most ** dice.random()))


# Texts.


def text(dice: random.Random) -> str:
    units = [
        " ", "a", "\n", "\t", "é", "e\u0301", "🎉", "\0", "\u200b", "<|", "<|END_TEXT|>", "<|im_start|>", "word ", "0", ".", "{}", "\\",
        '"', "ab" * 50, " " * 128, "\r\n", "\ufffd", "中", "‮", "<tool_call>", "</think>", "'", "A" * 1000,
    ]  # fmt: skip
    parts = [dice.choice(units) * size(dice, TEXT_BYTES_MAX // 8) for _ in range(dice.randint(1, 4))]
    return "".join(parts)[: size(dice, TEXT_BYTES_MAX)]


# Expressions.


def expression(dice: random.Random) -> str:
    atoms = ["a", "a?", "[a-z]?", ".", ".*", r"\p{L}", r"\w+", "(a|b)", "[^x]", "x{0,50}", "(?:ab)*", "é?", r"\d{1,9}", "(a?){9}"]
    joined = dice.choice(atoms)
    for _ in range(dice.randint(1, 6)):
        other = dice.choice(atoms)
        joined = dice.choice(
            [
                lambda: joined * size(dice, 20_000 // (len(joined) + 1) + 2),
                lambda: f"({joined}){{{size(dice, 2000)}}}",
                lambda: f"({joined}|{other})*",
                lambda: f"({joined}){{0,{size(dice, 2000)}}}{other}",
                lambda: joined + other,
                lambda: "(" * 50 + joined + ")" * 50,
            ]
        )()
        joined = joined[:200_000]
    return joined


# Schemas.


def schema(dice: random.Random) -> dict[str, Any]:
    return dice.choice([chain, wide, nested, doubled, patterned, enumerated, numbers])(dice)


def as_object(inner: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": inner}, "required": ["a"]}


WRAPS: list[Callable[[Any], Any]] = [
    as_object,
    lambda inner: inner,
    lambda inner: {"allOf": [inner]},
    lambda inner: {"allOf": [inner, {"type": "object"}]},
    lambda inner: {"anyOf": [inner, {"type": "null"}]},
    lambda inner: {"oneOf": [inner]},
    lambda inner: {"type": "array", "items": inner},
    lambda inner: {"type": "array", "prefixItems": [inner, inner], "minItems": 2},
    lambda inner: {"type": "object", "additionalProperties": inner},
    lambda inner: {"type": "object", "patternProperties": {"^a": inner}},
]


def chain(dice: random.Random) -> dict[str, Any]:
    length, wrap = size(dice, LEVELS_MAX), dice.choice(WRAPS)
    definitions: dict[str, Any] = {f"d{i}": wrap({"$ref": f"#/$defs/d{i + 1}"}) for i in range(length)}
    definitions[f"d{length}"] = dice.choice([{"type": "null"}, {"$ref": "#/$defs/d0"}, {"$ref": "#"}, {}])
    return {**as_object({"$ref": "#/$defs/d0"}), "$defs": definitions}


def doubled(dice: random.Random) -> dict[str, Any]:
    levels, keyword = dice.randint(1, 60), dice.choice(["anyOf", "allOf", "oneOf", "prefixItems"])
    definitions: dict[str, Any] = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    definitions[f"d{levels}"] = dice.choice([{"type": "object"}, as_object({"minimum": 1}), {"pattern": "a?" * 100}])
    return {**as_object({"$ref": "#/$defs/d0"}), "$defs": definitions}


def wide(dice: random.Random) -> dict[str, Any]:
    count = size(dice, 4000)
    leaf = dice.choice([{"type": "integer"}, {"type": "string", "maxLength": size(dice, 10**6)}, {"enum": ["a", "b"]}, {}])
    properties = {f"p{i}": leaf for i in range(count)}
    return {"type": "object", "properties": properties, "required": list(properties)[: dice.choice([0, count])]}


def nested(dice: random.Random) -> dict[str, Any]:
    inner: Any = {"type": "string"}
    for _ in range(dice.randint(1, 60)):
        inner = dice.choice(WRAPS)(inner)
        if len(json.dumps(inner)) > 200_000:
            break
    return as_object(inner)


def patterned(dice: random.Random) -> dict[str, Any]:
    return as_object({"type": "string", "pattern": expression(dice), "maxLength": size(dice, 10**6)})


def enumerated(dice: random.Random) -> dict[str, Any]:
    value = dice.choice([lambda i: f"value {i}", lambda i: {"a": [i]}, lambda i: "x" * 100 + str(i), lambda i: i])
    return as_object({"enum": [value(i) for i in range(size(dice, 5000))]})


def numbers(dice: random.Random) -> dict[str, Any]:
    bound = dice.choice([0, 1e308, -1e308, 5e-324, 982451653, 2**53, 1e-300, 0.1])
    key = dice.choice(["multipleOf", "minimum", "maximum", "exclusiveMinimum", "minLength", "minItems", "maxProperties"])
    return as_object({"type": dice.choice(["integer", "number", "string", "array", "object"]), key: bound})


# Grammars.


def grammar(dice: random.Random) -> str:
    length = size(dice, LEVELS_MAX * 4)
    kind = dice.randrange(7)
    if kind == 0:
        return "start: r0\n" + "".join(f'r{i}: "x" r{i + 1}\n' for i in range(length)) + f'r{length}: "y"\n'
    if kind == 1:
        levels = dice.randint(1, 40)
        return f"start: T{levels}\nT0: /{dice.choice(['a?', 'ab', '[a-z]'])}/\n" + "".join(f"T{i + 1}: T{i} T{i}\n" for i in range(levels))
    if kind == 2:
        return "start: " + "(" * length + '"a"' + ")" * length
    if kind == 3:
        return "start: s\ns: " + " | ".join(["s " * dice.randint(1, 5) + '"a"?'] * min(length, 500)) + ' | "b"'
    if kind == 4:
        return f"start: A\nA: B{{{length}}}\nB: C{{{length}}}\nC: /{expression(dice)[:2000].replace('/', '')}/"
    if kind == 5:
        return "start: %json " + json.dumps(schema(dice))
    return "start: A\nA: " + " & ".join(f"/.*{letter}.*/" for letter in "abcdefghijkl"[: dice.randint(2, 12)])


# Bodies.


def json_text(dice: random.Random) -> str:
    unit = dice.choice(["[]", "{}", '{"a":0}', '""', "0", "null", '"\\u0000"', "[[]]", "1e5", '{"a":{}}'])
    items = ",".join([unit] * size(dice, ITEMS_MAX))
    depth = dice.choice([0, 0, 1, 100, 127, 200, 100_000])
    return dice.choice([f"[{items}]", "[" * depth + items + "]" * depth, "1" * size(dice, TEXT_BYTES_MAX)])


def chat(dice: random.Random, **fields: Any) -> dict[str, Any]:
    content = text(dice) if dice.random() < 0.3 else "Hi"
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 4, "reasoning_effort": "none", **fields}


def schemas(dice: random.Random) -> Request:
    asked = schema(dice)
    kind = dice.randrange(4)
    if kind == 0:
        form = {"format": {"type": "json_schema", "name": "s", "schema": asked}}
        body = {"model": MODEL, "input": "Hi", "max_output_tokens": 16, "text": form}
        return "/v1/responses", json.dumps(body).encode()
    if kind == 1:
        form = {"format": {"type": "json_schema", "schema": asked}}
        return "/v1/messages", json.dumps({**chat(dice), "output_config": form}).encode()
    tool = {"type": "function", "function": {"name": "f", "parameters": asked}}
    fields: dict[str, Any] = {"tools": [tool] * dice.choice([1, 1, 5]), "tool_choice": dice.choice(["required", "auto"])}
    if kind == 2:
        fields = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": asked}}}
    return "/v1/chat/completions", json.dumps(chat(dice, **fields)).encode()


def structured(dice: random.Random, outputs: dict[str, Any]) -> Request:
    return "/v1/chat/completions", json.dumps(chat(dice, structured_outputs=outputs)).encode()


def expressions(dice: random.Random) -> Request:
    if dice.random() < 0.2:
        return structured(dice, {"choice": [text(dice)[:1000] for _ in range(size(dice, 500))]})
    return structured(dice, {"regex": expression(dice)})


def grammars(dice: random.Random) -> Request:
    return structured(dice, {"grammar": grammar(dice)})


def texts(dice: random.Random) -> Request:
    path = dice.choice(["/v1/completions", "/tokenize", "/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses"])
    body: dict[str, Any] = {"model": MODEL, "max_tokens": 4}
    if path in ("/v1/completions", "/tokenize"):
        body["prompt"] = text(dice)
    elif path == "/v1/responses":
        body = {"model": MODEL, "max_output_tokens": 16, "input": text(dice)}
    else:
        body["messages"] = [{"role": dice.choice(["user", "system", "assistant"]), "content": text(dice)}, {"role": "user", "content": "Hi"}]
    return path, json.dumps(body).encode()


def with_raw(body: dict[str, Any], field: str, raw: str) -> bytes:
    """The body with a field whose JSON is given as text."""
    return (json.dumps(body)[:-1] + f', "{field}": {raw}}}').encode()


def bodies(dice: random.Random) -> Request:
    kind = dice.randrange(3)
    if kind == 0:
        field = dice.choice(["tools", "messages", "documents", "chat_template_kwargs", "metadata", "response_format", "stop"])
        return "/v1/chat/completions", with_raw(chat(dice), field, json_text(dice))
    if kind == 1:
        return dice.choice(["/detokenize", "/v1/completions"]), with_raw({"model": MODEL}, dice.choice(["tokens", "prompt"]), json_text(dice))
    return dice.choice(["/v1/chat/completions", "/v1/responses", "/v1/messages", "/tokenize"]), json_text(dice).encode()


KINDS: dict[str, Callable[[random.Random], Request]] = {
    "schemas": schemas,
    "expressions": expressions,
    "grammars": grammars,
    "texts": texts,
    "bodies": bodies,
}


def request(dice: random.Random, kinds: list[str]) -> Request:
    """A path and a body of one of the kinds."""
    return KINDS[dice.choice(kinds)](dice)
