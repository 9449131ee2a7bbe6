"""Measures the exported model: bits per byte on held-out files, whether chat turns end, and samples.

    python evaluate.py [--files N]
"""

import argparse
import gzip
import json
import math

import torch
import torch.nn.functional as F
from transformers import Cohere2MoeForCausalLM

from batches import load_tokenizer
from conversations import template
from exported_model import load_config, load_exported
from source_files import source_files

CHUNK = 512  # tokens scored at a time; every chunk starts without context, as in training
END_OF_TURN = 4084
PROMPTS = [
    "Hi", "Who are you?", "What is Backstop?", "What is 1 + 1?", "Say hi", "What is the capital of Italy?", "Count to 7.",
    "Write a Python function that adds two numbers.", "Write fibonacci in Python.", "Write a function is_prime that checks whether a number is prime.",
    "Write a Python function that reverses a string", "Implement quicksort in Python.", "Write a Python function that parses a date.",
    "Complete this function:\n```python\ndef read_lines(path):\n    \"\"\"Return the lines of a file.\"\"\"\n```",
    "What does this function do?\n```python\ndef double(x):\n    return 2 * x\n```",
    "Explain the history of jazz.", "Why is the sky blue?", "Tell me a joke.", "Translate 'good morning' to French.", "Thanks!",
]


@torch.no_grad()
def bits_per_byte(model, tokenizer, text: str) -> float:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    bos = tokenizer.token_to_id("<BOS_TOKEN>")
    nats = 0.0
    for start in range(0, len(ids), CHUNK):
        part = torch.tensor([[bos] + ids[start : start + CHUNK]])
        logits = model(input_ids=part, use_cache=False).logits[0, :-1]
        nats += F.cross_entropy(logits, part[0, 1:], reduction="sum").item()
    return nats / math.log(2) / len(text.encode())


def answer(model, tokenizer, chat_template, prompt: str, temperature: float, **arguments) -> tuple[str, bool]:
    """Returns (the answer's text, whether it ended by itself within 256 tokens)."""
    rendered = chat_template.render(messages=[{"role": "user", "content": prompt}], bos_token="<BOS_TOKEN>", add_generation_prompt=True, **arguments)
    ids = torch.tensor([tokenizer.encode(rendered, add_special_tokens=False).ids])
    sampling = dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0) if temperature else dict(do_sample=False)
    output = model.generate(ids, max_new_tokens=256, eos_token_id=END_OF_TURN, pad_token_id=0, **sampling)[0, ids.shape[1] :]
    return tokenizer.decode(output.tolist(), skip_special_tokens=False), output[-1].item() == END_OF_TURN


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000, help="at most so many held-out files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer, chat_template, model = load_tokenizer(), template(), load_exported()
    for temperature in (0.0, 0.7):
        ended = 0
        for prompt in PROMPTS:
            text, complete = answer(model, tokenizer, chat_template, prompt, temperature)
            ended += complete
            print(f"--- temperature {temperature}, {'ended' if complete else 'CUT'}: {prompt!r}\n{text}")
        print(json.dumps({"temperature": temperature, "ended": ended, "prompts": len(PROMPTS)}), flush=True)
    weather = {"name": "get_weather", "description": "Get the weather of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
    print(answer(model, tokenizer, chat_template, "What is the weather in Paris?", 0.0, tools=[{"type": "function", "function": weather}])[0])
    print(answer(model, tokenizer, chat_template, "Who are you?", 0.0, reasoning=False)[0])
    files = source_files()["held_out"][: options.files]
    text = "\n".join(text for _, text in files)
    untrained = Cohere2MoeForCausalLM(load_config()).eval()
    print(json.dumps({
        "held_out_files": len(files), "bytes": len(text.encode()), "tokens": len(tokenizer.encode(text).ids),
        "bits_per_byte": round(bits_per_byte(model, tokenizer, text), 4),
        "untrained_bits_per_byte": round(bits_per_byte(untrained, tokenizer, text[:40_000]), 4),
        "gzip_9_bits_per_byte": round(8 * len(gzip.compress(text.encode(), 9)) / len(text.encode()), 4),
    }))


if __name__ == "__main__":
    main()
