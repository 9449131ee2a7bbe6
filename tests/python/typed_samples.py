"""Values of the types by which the vendors' packages describe requests: for each kind one with everything in it."""

import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union

from typing_extensions import get_args, get_origin, get_type_hints, is_typeddict

# Beyond it values are as short as they can be, for some types contain themselves.
DEPTH_MAX = 5
PLAIN = {str: "some_text", int: 1, float: 0.5, bool: True, object: {}, bytes: "AA=="}


def samples(kind: Any, depth: int = 0) -> Iterator[Any]:
    """Values of this type: of a choice one for each alternative, of an object one for each choice within it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Annotated, typing.Required, typing.NotRequired):
        yield from samples(arguments[0], depth)
    elif origin is Literal:
        yield arguments[0]
    elif origin is Union or origin is type(int | str):
        for alternative in arguments:
            yield from samples(alternative, depth)
    elif is_typeddict(kind):
        yield from objects(kind, depth)
    elif kind in PLAIN:
        yield PLAIN[kind]
    elif origin is dict or kind is dict:
        yield {}
    elif origin is not None and len(arguments) == 1:  # Iterable, List, Sequence
        elements = list(samples(arguments[0], depth)) if depth < DEPTH_MAX else []
        yield elements


def objects(kind: Any, depth: int) -> Iterator[dict[str, Any]]:
    hints = get_type_hints(kind, include_extras=True)
    hints.pop("cache_control", None)
    names = [name for name in hints if depth < DEPTH_MAX or name in kind.__required_keys__]
    values = {name: list(samples(hints[name], depth + 1)) for name in names}
    values = {name: choices for name, choices in values.items() if choices}
    if any(name not in values for name in kind.__required_keys__):
        return
    first = {name: choices[0] for name, choices in values.items()}
    yield first
    for name, choices in values.items():
        for choice in choices[1:]:
            yield {**first, name: choice}


def alternatives(union: Any) -> list[Any]:
    """The kinds of objects that this type is a choice of."""
    found = []
    for alternative in get_args(union):
        if get_origin(alternative) is Annotated:
            alternative = get_args(alternative)[0]
        if is_typeddict(alternative):
            found.append(alternative)
        elif get_args(alternative):
            found += alternatives(alternative)
    return found
