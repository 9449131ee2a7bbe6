"""Writes tests/goldens/demo: reference logits of the demo model on a text longer than its window.

    python scripts/goldens/make_demo_golden.py
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts" / "demo_model"))
from classic_functions import CLASSIC_FUNCTIONS  # noqa: E402
from exported_model import MODEL_FOLDER, load_exported  # noqa: E402

TOKENS = 320  # the window is 256
POSITIONS = 64


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    model = load_exported()
    model.set_attn_implementation("eager")
    text = "\n\n\n".join(code for _, _, code in CLASSIC_FUNCTIONS)
    tokens = torch.tensor(Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json")).encode(text).ids[:TOKENS])
    positions = torch.arange(TOKENS - POSITIONS, TOKENS)
    logits = model(input_ids=tokens[None], use_cache=False).logits[0, positions].float().contiguous()
    assert torch.isfinite(logits).all() and len(tokens) == TOKENS
    folder = ROOT / "tests" / "goldens" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"tokens": tokens, "positions": positions, "logits": logits}, folder / "expected.safetensors", metadata={"format": "pt"})
    top = logits.topk(2).values
    print(f"{TOKENS} tokens, logit std {logits.std():.2f}, least gap between the best two {(top[:, 0] - top[:, 1]).min():.4f}")


if __name__ == "__main__":
    main()
