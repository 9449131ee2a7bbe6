"""Writes tests/goldens/eagle: random EAGLE heads for models of tests/goldens/cohere2_moe, and what they compute.

    python scripts/goldens/make_eagle_goldens.py

The formulas are those of vLLM 0.32 (models/cohere_eagle.py, models/commandr.py, v1/spec_decode), written anew in plain
torch in f32 over whole sequences: the row at position p takes the embedding of the token at p + 1 and the model's
final-normed hidden state for p, which transformers computes. Behind the last position the head goes on with its own
guesses and its own hidden states.
"""

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import Cohere2MoeForCausalLM

from make_goldens import OUTPUT as MODELS, reference_config, write_json

OUTPUT = MODELS.parent / "eagle"
CONTINUED = 2
# A guess must not depend on the order of additions.
GUESS_MARGIN = 1e-2

BASE = {
    "architectures": ["CohereForCausalLM"],
    "model_type": "cohere2",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "hidden_act": "silu",
    "layer_types": ["sliding_attention"] * 3,
    "sliding_window": 16,
    "max_position_embeddings": 512,
    "rope_theta": 50000,
    "rms_norm_eps": 1e-6,
    "layer_norm_eps": 1e-5,
    "logit_scale": 0.25,
    "tie_word_embeddings": True,
    "attention_bias": False,
}

# Name: (the model, type of the weights, what differs in the configuration).
CASES = {
    # North Mini Code's shape, with biases in the file that the reference leaves out.
    "north": ("north_bf16_sharded", torch.bfloat16, {}),
    # LayerNorm in the layers, full attention without positions, a smaller window than the model's.
    "mixed_layer_norm": (
        "layer_norm_null",
        torch.float32,
        {"rms_norm_eps": None, "layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2, "sliding_window": 8, "num_attention_heads": 4, "num_key_value_heads": 2},
    ),
}


def norm(x: torch.Tensor, weight: torch.Tensor, config: dict, final: bool = False) -> torch.Tensor:
    if config["rms_norm_eps"] is not None and not final:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + config["rms_norm_eps"]) * weight
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + config["layer_norm_eps"]) * weight


def rotate(x: torch.Tensor, theta: float) -> torch.Tensor:
    """Neighbouring elements of [heads, T, D] are rotated together."""
    length, width = x.shape[-2:]
    angles = torch.arange(length)[:, None] * theta ** (-torch.arange(0, width, 2) / width)
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2)


def attention(x: torch.Tensor, tensors: dict, prefix: str, config: dict, sliding: bool) -> torch.Tensor:
    heads = lambda name, count: (x @ tensors[f"{prefix}.{name}_proj.weight"].T).unflatten(-1, (count, config["head_dim"])).transpose(0, 1)
    q, k, v = heads("q", config["num_attention_heads"]), heads("k", config["num_key_value_heads"]), heads("v", config["num_key_value_heads"])
    distance = torch.arange(len(x))[:, None] - torch.arange(len(x))
    visible = distance >= 0
    if sliding:
        q, k = rotate(q, config["rope_theta"]), rotate(k, config["rope_theta"])
        visible &= distance <= config["sliding_window"]
    share = len(q) // len(k)
    scores = q @ k.repeat_interleave(share, 0).transpose(1, 2) * config["head_dim"] ** -0.5
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    attended = (weights @ v.repeat_interleave(share, 0)).transpose(0, 1).flatten(1)
    return attended @ tensors[f"{prefix}.o_proj.weight"].T


def forward(config: dict, tensors: dict, embedding: torch.Tensor, tokens: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and logits of all positions; `tokens` are those behind the positions of `hidden`."""
    h = F.linear(torch.cat((embedding[tokens], hidden), -1), tensors["model.fc.weight"], tensors["model.fc.bias"])
    for index, kind in enumerate(config["layer_types"]):
        prefix = f"model.layers.{index}"
        x = norm(h, tensors[f"{prefix}.input_layernorm.weight"], config)
        mlp = F.silu(x @ tensors[f"{prefix}.mlp.gate_proj.weight"].T) * (x @ tensors[f"{prefix}.mlp.up_proj.weight"].T)
        mlp = mlp @ tensors[f"{prefix}.mlp.down_proj.weight"].T
        h = h + attention(x, tensors, f"{prefix}.self_attn", config, kind == "sliding_attention") + mlp
    h = norm(h, tensors["model.norm.weight"], config, final=True)
    return h, h @ embedding.T * config["logit_scale"]


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    hidden, width = config["hidden_size"], config["intermediate_size"]
    query, key = config["num_attention_heads"] * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    result = {"model.fc.weight": (hidden, 2 * hidden), "model.fc.bias": (hidden,), "model.norm.weight": (hidden,)}
    for index in range(config["num_hidden_layers"]):
        layer = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (query, hidden),
            "self_attn.k_proj": (key, hidden),
            "self_attn.v_proj": (key, hidden),
            "self_attn.o_proj": (hidden, query),
            "mlp.gate_proj": (width, hidden),
            "mlp.up_proj": (width, hidden),
            "mlp.down_proj": (hidden, width),
        }
        result.update({f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()})
    return result


def random_tensors(config: dict, generator: torch.Generator) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, shape in shapes(config).items():
        values = torch.randn(shape, generator=generator)
        if len(shape) == 2:
            values *= shape[1] ** -0.5 * (1.6 if "q_proj" in name or "k_proj" in name else 1.0)
        elif "norm" in name:
            values = 1 + 0.2 * values
        tensors[name] = values
    return tensors


@torch.no_grad()
def make(name: str, number: int) -> str:
    model_name, stored, changes = CASES[name]
    config = {**BASE, **changes}
    folder = MODELS / model_name
    model_config = reference_config(json.loads((folder / "config.json").read_text()))
    options = {"dtype": torch.float32, "attn_implementation": "eager", "experts_implementation": "eager"}
    model = Cohere2MoeForCausalLM.from_pretrained(folder, config=model_config, **options).eval()
    tokens = load_file(folder / "expected.safetensors")["tokens"]
    states = model.model(input_ids=tokens[None, :-1], use_cache=False).last_hidden_state[0]
    embedding = model.model.embed_tokens.weight
    for attempt in range(100):
        tensors = random_tensors(config, torch.Generator().manual_seed(100 * number + attempt))
        tensors = {key: value.to(stored).float() for key, value in tensors.items()}
        following, hidden, margin = tokens[1:], states, 1.0
        for _ in range(CONTINUED + 1):
            computed, logits = forward(config, tensors, embedding, following, hidden)
            best = logits[-1].sort(descending=True).values
            margin = min(margin, (best[0] - best[1]).item())
            guess = logits[-1].argmax()
            following = torch.cat((following, guess[None]))
            hidden = torch.cat((hidden, computed[-1:]))
        if margin > GUESS_MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear guesses")
    folder = OUTPUT / name
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    saved = {key: value.to(stored) for key, value in tensors.items()}
    if name == "north":
        for key in [key for key in saved if key.endswith("_proj.weight") and ("mlp" in key or "o_proj" in key)]:
            saved[key.replace("weight", "bias")] = torch.zeros(len(saved[key]), dtype=stored)
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    expected = {"tokens": tokens, "hidden": computed[: len(states)].contiguous(), "logits": logits.contiguous(), "guesses": following[len(states) :]}
    save_file(expected, folder / "expected.safetensors", metadata={"format": "pt"})
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"{name:20} {size:8} bytes  {len(saved)} tensors  attempt {attempt}  logit std {logits.std():.2f}  margin {margin:.3f}"


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    for number, name in enumerate(CASES):
        print(make(name, number), flush=True)


if __name__ == "__main__":
    main()
