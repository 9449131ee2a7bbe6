"""Runs a program that a model wrote against a task's tests. It runs isolated, and trusts neither the program nor itself:
the verdict is a line that begins with a word that the program was not told.

Standard input is a JSON object: `word`; `answer`, what the model wrote; `is_script`, whether that is to be looked for Python,
as EvalPlus does; `entry_point`; `cpu_s`; and either `test`, a program's end that fails if the task is not solved, or
`reference`, `inputs` and `oracle`, for outputs that are compared with a reference solution's. With a `frame`, which has a
function `check`, scripts run by themselves, and `check` is called with their entry point.
"""

import ast
import copy
import io
import json
import os
import signal
import sys
import time
import warnings

PARSES_MAX = 4000
# EvalPlus' own: each input has at least so long, and so many times as long as the reference took.
INPUT_SECONDS_MIN = 4.0
REFERENCE_FACTOR = 4.0
RELATIVE_TOLERANCE = 1e-07
REASON_CHARACTERS_MAX = 300


class TimedOut(BaseException):
    """Not an Exception, so that programs seldom catch it."""


class BrokenReference(Exception):
    """The task is at fault, not the answer."""


class Nowhere(io.TextIOBase):
    """Takes what programs write, and has nothing to read."""

    def writable(self):
        return True

    def write(self, text):
        return len(text)


def tree_of(lines):
    try:
        return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def longest_python(text):
    """The lines in a row that are Python and are most, blank ones not counted; the first of several."""
    lines = text.split("\n")
    before = [0]
    for line in lines:
        before.append(before[-1] + bool(line.strip()))
    spans = [(before[end] - before[start], start, end) for start in range(len(lines)) for end in range(start + 2, len(lines) + 1)]
    spans.sort(key=lambda span: (-span[0], span[1], span[2]))
    parses = 0
    for count, start, end in spans:
        if count == 0:
            break
        # What is indented or blank at its beginning is no program, or a longer one begins later.
        first = lines[start]
        if not first.strip() or first[0].isspace() or first.startswith("```"):
            continue
        parses += 1
        if parses > PARSES_MAX:
            return longest_block(lines)
        if tree_of(lines[start:end]):
            return "\n".join(lines[start:end])
    return ""


def longest_block(lines):
    """Of long answers: the longest block between fences that is Python."""
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith("```")] + [len(lines)]
    blocks = [lines[start + 1 : end] for start, end in zip(fences, fences[1:])]
    return "\n".join(max((block for block in blocks if tree_of(block)), key=len, default=[]))


def names_in(node):
    for part in ast.walk(node):
        for field in ("id", "attr", "arg", "name"):
            name = getattr(part, field, None)
            if isinstance(name, str):
                yield name


def defined_name(node):
    """What a statement defines, if it is of those that are kept."""
    if isinstance(node, ast.ClassDef):
        return node.name
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return node.name if any(isinstance(part, ast.Return) for part in ast.walk(node)) else None
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return targets[0].id if targets and isinstance(targets[0], ast.Name) else None


def sanitised(code, entry_point):
    """Imports, and the first definitions of all that the entry point needs; no calls, prints or tests of the model's own."""
    tree = tree_of([code])
    if tree is None:
        return ""
    lines = code.split("\n")
    imports, definitions = [], {}
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.append(node)
        elif (name := defined_name(node)) is not None:
            definitions.setdefault(name, node)
    needed, open_names = set(), [entry_point] if entry_point else list(definitions)
    while open_names:
        name = open_names.pop()
        if name in definitions and name not in needed:
            needed.add(name)
            open_names.extend(names_in(definitions[name]))
    kept = imports + [node for name, node in definitions.items() if name in needed]

    def source(node):
        decorators = getattr(node, "decorator_list", [])
        if decorators:
            return "\n".join(lines[decorators[0].lineno - 1 : node.end_lineno])
        return ast.get_source_segment(code, node)

    return "\n".join(source(node) for node in kept)


def within(seconds, action, *arguments):
    """Calls with a limit on processor time, which the kernel enforces where this one is caught."""

    def end(_signal, _frame):
        raise TimedOut

    signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return action(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def run_tests(code, task):
    """Tests may use what stands in the task's text, which a program that stands for itself need not have."""
    frame = task.get("frame") if task["is_script"] else None

    def run():
        program, tests = {}, {}
        if frame is None:
            exec(compile(f"{code}\n{task['test']}\n", "<answer>", "exec"), program)
            return
        exec(compile(code, "<answer>", "exec"), program)
        exec(compile(frame, "<test>", "exec"), tests)
        tests["check"](program[task["entry_point"]])

    within(task["cpu_s"], run)


def tuples(value):
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


def shaped(shape, arguments):
    """JSON has no tuples, sets and complex numbers: MBPP+ says by the task what its lists stand for."""
    pair = lambda item: tuple(item) if isinstance(item, list) else item
    items = lambda argument: [pair(item) for item in argument]
    first, rest = arguments[0] if arguments else None, arguments[1:]
    match shape:
        case "each":
            return [tuple(argument) for argument in arguments]
        case "items":
            return [items(argument) for argument in arguments]
        case "first-items":
            return [items(first), *rest]
        case "first":
            return [tuple(first), *rest]
        case "second":
            return [first, tuple(rest[0]), *rest[1:]]
        case "items-and-each":
            return [tuple(items(argument)) for argument in arguments]
        case "values":
            return [{key: tuple(value) for key, value in first.items()}, *rest]
        case "sets":
            return [[set(item) if isinstance(item, list) and item else {} for item in first]]
        case "float-complex":
            return [float(first), complex(rest[0])]
        case "complex":
            return [complex(first)]
        case "everything":
            return list(tuples(arguments))
        case _:
            return arguments


def is_floats(value):
    if isinstance(value, (list, tuple)) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def is_close(output, expected, tolerance):
    """As numpy's allclose, for numbers and lists of them."""
    if isinstance(expected, (list, tuple)):
        return len(output) == len(expected) and all(is_close(*pair, tolerance) for pair in zip(output, expected))
    return output == expected or abs(output - expected) <= tolerance + RELATIVE_TOLERANCE * abs(expected)


def surface_area(base, height):
    """Of a pyramid: what MBPP/581 takes for right as well."""
    return round(base**2 + 2 * base * ((base / 2) ** 2 + height**2) ** 0.5)


def digit_distance(one, other):
    """What MBPP/782 takes for right as well."""
    width = max(len(str(one)), len(str(other)))
    return sum(abs(int(a) - int(b)) for a, b in zip(str(one).zfill(width), str(other).zfill(width)))


def agrees(oracle, arguments, output, expected, tolerance):
    """Whether an output is right; tasks with several right answers have an oracle of their own."""
    match oracle:
        case "root":
            assert abs(sum(factor * output**power for power, factor in enumerate(arguments[0]))) <= tolerance
            return True
        case "any":
            return True
        case "or-zero":
            exact = output == expected or output == 0
        case "same-set":
            exact = set(output) == set(expected)
        case "not-none":
            exact = output == expected if isinstance(output, bool) else expected == (output is not None)
        case "surface-area":
            exact = output == expected or abs(output - surface_area(*arguments)) <= tolerance
        case "digit-distance":
            exact = output == expected or output == digit_distance(*arguments)
        case _:
            exact = output == expected
    if tolerance == 0 and is_floats(expected):
        tolerance = 1e-6
    if exact or tolerance == 0:
        return bool(exact)
    return type(output) is type(expected) and is_close(output, expected, tolerance)


def run_differential(code, task):
    """Says whether the task's own inputs and the further ones gave what the reference gives."""
    trusted, program = {}, {}
    try:
        exec(compile(task["reference"], "<reference>", "exec"), trusted)
        reference = trusted[task["entry_point"]]
    except Exception as error:
        raise BrokenReference(repr(error)) from error
    within(task["cpu_s"], lambda: exec(compile(code, "<answer>", "exec"), program))
    program = program[task["entry_point"]]
    oracle = task["oracle"]
    for kind in ("base", "plus"):
        for arguments in task["inputs"][kind]:
            began = time.process_time()
            try:
                arguments = shaped(task["shape"], arguments)
                expected = reference(*copy.deepcopy(arguments))
            except Exception as error:
                raise BrokenReference(repr(error)) from error
            took = time.process_time() - began
            if oracle == "not-none":
                expected = expected is not None
            limit = max(INPUT_SECONDS_MIN, REFERENCE_FACTOR * took)
            output = within(limit, lambda: program(*copy.deepcopy(arguments)))
            if not agrees(oracle, arguments, output, expected, task["atol"]):
                raise AssertionError(f"{kind} input: another output than the reference's")
        yield kind


def judged(task):
    """The outcome, why, and which kinds of inputs were passed."""
    code = task["answer"]
    if task["is_script"]:
        code = sanitised(longest_python(code), task["entry_point"])
        if not code.strip():
            return "no code", "the answer has no Python that defines anything", []
    passed = []
    sys.stdin = sys.stdout = sys.stderr = Nowhere()
    try:
        if task.get("reference"):
            for kind in run_differential(code, task):
                passed.append(kind)
        else:
            run_tests(code, task)
    except TimedOut:
        return "timed out", None, passed
    except MemoryError:
        return "out of memory", None, passed
    except BrokenReference as error:
        return "reference failed", str(error)[:REASON_CHARACTERS_MAX], passed
    except BaseException as error:
        return "failed", f"{type(error).__name__}: {error}"[:REASON_CHARACTERS_MAX], passed
    return "passed", None, passed


def main():
    warnings.simplefilter("ignore")
    task = json.load(sys.stdin)
    word = task.pop("word")
    # The program may write to 1 and 2 itself; the verdict goes another way.
    out = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    outcome, reason, passed = judged(task)
    line = json.dumps({"outcome": outcome, "reason": reason, "passed": passed})
    os.write(out, f"\n{word} {line}\n".encode())
    # Threads and exit handlers of the program are not waited for.
    os._exit(0)


main()
