"""How schemathesis reads the document, made affordable: short answers, and no lists of thousands.

Loaded by SCHEMATHESIS_HOOKS. The document itself states the real limits; those are tested in Rust.
"""

from typing import Any

import schemathesis

TOKENS_MAX = 8
LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens")
GENERATING = ("/completions", "/responses", "/messages")
# Their lengths are in `options`.
OLLAMA = ("/api/chat", "/api/generate")
# Of these one may be set, or every other case would be refused for having several.
EXCLUSIVE = (
    ("tools", "functions"),
    (
        "response_format",
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "json_schema",
        "regex",
    ),
)
# Drawing large values takes most of the time otherwise, and finds nothing more.
SIZES_MAX = {"maxItems": 4, "maxProperties": 4, "maxLength": 64}


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    clamp(raw_schema["components"]["schemas"])


def clamp(schema: Any) -> None:
    if isinstance(schema, list):
        for element in schema:
            clamp(element)
    if isinstance(schema, dict):
        for name, largest in SIZES_MAX.items():
            if isinstance(schema.get(name), int):
                schema[name] = min(schema[name], largest)
        for element in schema.values():
            clamp(element)


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Bounds how long an answer gets, and leaves one field of those that exclude each other.

    Values out of range stay as they are: they are to be refused.
    """
    path = context.operation.path
    if isinstance(body, dict) and path in OLLAMA:
        return bounded_options(body)
    if not isinstance(body, dict) or not path.endswith(GENERATING):
        return body
    for names in EXCLUSIVE:
        present = [name for name in names if body.get(name)]
        # Which one stays is a matter of the case, so that all of them have their turn.
        for index, name in enumerate(present):
            if index != len(body) % len(present):
                del body[name]
    for name in LENGTHS:
        length = body.get(name)
        if isinstance(length, int) and TOKENS_MAX < length < 2**31:
            body[name] = TOKENS_MAX
    name = "max_output_tokens" if path.endswith("/responses") else "max_tokens"
    if body.get(name) is None and not path.endswith("/messages"):
        body[name] = TOKENS_MAX
    return body


def bounded_options(body: dict[str, Any]) -> dict[str, Any]:
    options = body.get("options")
    if options is None:
        options = body["options"] = {}
    if isinstance(options, dict):
        length = options.get("num_predict")
        if length is None or (isinstance(length, int) and (-2 <= length <= 0 or TOKENS_MAX < length < 2**31)):
            options["num_predict"] = TOKENS_MAX
    return body
