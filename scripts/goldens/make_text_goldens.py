"""Writes tests/goldens/chat and tests/goldens/melody.

    python scripts/goldens/make_text_goldens.py

chat: the demo model's template rendered by transformers. melody: what Cohere's streaming parser makes of outputs.
"""

import json
import shutil
from pathlib import Path

import cohere_melody
from transformers import PreTrainedTokenizerFast

from chat_cases import CHAT_CASES
from melody_cases import MELODY_CASES, pieces

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens"
# Short pieces, like tokens; and longer ones, in which several things end at once, as speculation delivers them.
PIECE_LENGTHS = (4, 40)


def fresh_folder(name: str) -> Path:
    folder = GOLDENS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def make_chat() -> int:
    folder = fresh_folder("chat")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ROOT / "models" / "demo")
    for name, case in CHAT_CASES.items():
        request = {"messages": case["messages"], "tools": case.get("tools"), "documents": case.get("documents"),
                   "add_generation_prompt": case.get("add_generation_prompt", True), "arguments": case.get("arguments", {})}
        text = tokenizer.apply_chat_template(
            request["messages"], tools=request["tools"], documents=request["documents"],
            add_generation_prompt=request["add_generation_prompt"], tokenize=False, **request["arguments"],
        )
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        write(folder / f"{name}.json", {"request": request, "text": text, "tokens": tokens})
    return len(CHAT_CASES)


def parse(stream: list[str]) -> dict:
    """Feeds the pieces one by one and merges what comes out."""
    parser = cohere_melody.PyFilter(cohere_melody.PyFilterOptions().cmd4())
    merged = {"reasoning": "", "content": "", "tool_calls": {}}
    try:
        for piece in stream:
            merge(merged, parser.write_decoded(piece))
        merge(merged, parser.flush_partials())
    except Exception as error:  # a refusal is a result, too
        merged["error"] = type(error).__name__
    merged["tool_calls"] = [merged["tool_calls"][index] for index in sorted(merged["tool_calls"])]
    return merged


def merge(merged: dict, delta) -> None:
    merged["reasoning"] += delta.reasoning or ""
    merged["content"] += delta.content or ""
    for call in delta.tool_calls:
        entry = merged["tool_calls"].setdefault(call.index, {"index": call.index, "id": "", "name": "", "arguments": ""})
        entry["id"] += call.id
        entry["name"] += call.name
        entry["arguments"] += call.arguments


def make_melody() -> int:
    folder = fresh_folder("melody")
    for name, text in MELODY_CASES.items():
        streams = [pieces(name, text, longest) for longest in PIECE_LENGTHS]
        write(folder / f"{name}.json", {"text": text, "streams": [{"pieces": stream, "merged": parse(stream)} for stream in streams]})
    return len(MELODY_CASES)


if __name__ == "__main__":
    print(make_chat(), "conversations,", make_melody(), "outputs")
