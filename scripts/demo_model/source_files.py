"""Finds the training text: the Python standard library of the interpreter that runs this.

The split is by file and depends on the file's name alone, so that it is the same on every machine.
"""

import ast
import hashlib
import sysconfig
from pathlib import Path

# Tables and test data: many bytes, little to learn from.
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "encodings", "pydoc_data", "__pycache__", "ensurepip"}
HELD_OUT_ONE_IN = 25
FILE_BYTES_MAX = 200_000


def library_root() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def is_held_out(relative_name: str) -> bool:
    digest = hashlib.sha256(relative_name.encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


def source_files() -> dict[str, list[tuple[str, str]]]:
    """Returns {"train": [(name, text), ...], "held_out": [...]}, sorted by name."""
    root = library_root()
    split = {"train": [], "held_out": []}
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS & set(relative.parts) or path.stat().st_size > FILE_BYTES_MAX:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if len(text) < 200:
            continue
        split["held_out" if is_held_out(relative.as_posix()) else "train"].append((relative.as_posix(), text))
    return split


def documented_functions(text: str) -> list[dict]:
    """Short functions and methods that have a docstring, dedented to column 0."""
    found = []
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef) or node.decorator_list:
            continue
        summary = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ").strip()
        if not 12 <= len(summary) <= 110 or not summary[0].isalpha() or node.name.startswith("__"):
            continue
        indent = node.col_offset
        body = lines[node.lineno - 1 : node.end_lineno]
        code = "\n".join(line[indent:] for line in body)
        header_end = node.body[0].end_lineno - node.lineno + 1
        header = "\n".join(line[indent:] for line in body[:header_end])
        if 60 <= len(code) <= 520 and header_end < len(body):
            found.append({"name": node.name, "summary": summary, "code": code, "header": header})
    return found
