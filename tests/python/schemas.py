"""Random JSON schemas such as tools have, small enough that answers to them end."""

import random
from typing import Any

NAMES = ["city", "größe", "名前", "max results", 'a"b', "x-y", "path/to", "emoji🙂", "id", "ok", "back\\slash"]
PATTERNS = [r"^[a-z]{2,5}$", r"^\d{4}-\d{2}$", r"^(GET|POST) /[a-z]{0,4}$", r"^ä{1,3}$", r'^"quoted"$']

Schema = dict[str, Any]


def parameters(seed: int) -> Schema:
    """The schema of a tool's arguments: an object, everything in it bounded."""
    return _object(random.Random(seed), 2)


def _any(dice: random.Random, depth: int) -> Schema:
    kind = dice.randrange(8) if depth else 7
    if kind < 2:
        return _object(dice, depth - 1)
    if kind == 2:
        least = dice.randrange(2)
        return {"type": "array", "items": _any(dice, depth - 1), "minItems": least, "maxItems": least + dice.randrange(3)}
    if kind == 3:
        return {"anyOf": [_any(dice, depth - 1) for _ in range(2)]}
    return _scalar(dice)


def _object(dice: random.Random, depth: int) -> Schema:
    names = dice.sample(NAMES, dice.randrange(4))
    required = [name for name in names if dice.random() < 0.6]
    schema: Schema = {"type": "object", "properties": {name: _any(dice, depth) for name in names}, "required": required}
    if dice.random() < 0.5:
        schema["additionalProperties"] = False
    return schema


def _scalar(dice: random.Random) -> Schema:
    low = dice.randrange(-20, 20)
    return dice.choice(
        [
            {"type": "boolean"},
            {"type": ["string", "null"], "maxLength": 8},
            {"enum": ["a", 'ä"', 3, None, {"k": [1]}]},
            {"const": dice.choice(NAMES)},
            {"type": "integer", "minimum": low, "maximum": low + dice.randrange(1000)},
            {"type": "integer", "minimum": 0, "maximum": 300, "multipleOf": dice.randrange(1, 9)},
            {"type": "string", "pattern": dice.choice(PATTERNS)},
            {"type": "string", "minLength": dice.randrange(3), "maxLength": 3 + dice.randrange(12)},
            {"type": "string", "format": "uuid"},
        ]
    )
