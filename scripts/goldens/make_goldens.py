"""Writes tests/goldens/cohere2_moe: random small models and the logits that transformers computes for them.

    python scripts/goldens/make_goldens.py

The reference runs in f32 on the CPU, on the weights exactly as stored (BF16 and FP8 are widened first). A sliding
layer is served with `sliding_window` + 1 keys, whereas transformers counts the token itself; so the reference runs
with one more than the saved config.json says.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Cohere2MoeConfig, Cohere2MoeForCausalLM
from transformers.models.cohere2_moe import modeling_cohere2_moe

from cases import CASES, config_json
from float8 import dequantize, quantization_config, quantize_weight, quantized_experts_forward

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "cohere2_moe"
LOGIT_SPREAD = 2.0
# The least distance between the last chosen expert's logit and the next: an implementation that is right must not
# pick another expert because it adds in another order. FP8 rounding makes larger steps than f32 sums do.
ROUTER_MARGIN = {"F32": 5e-4, "BF16": 5e-4, "F8_E4M3": 3e-3}
PLAIN_EXPERTS_FORWARD = modeling_cohere2_moe.Cohere2MoeExperts.forward


def reference_config(config: dict) -> Cohere2MoeConfig:
    fields = {**config, "sliding_window": config["sliding_window"] + 1}
    if fields.get("tie_word_embeddings", True) is None:
        fields["tie_word_embeddings"] = True  # JSON null means the class's default
    return Cohere2MoeConfig(**fields)


def random_weights(model, generator: torch.Generator) -> None:
    """Normal weights of unit gain with heavy tails: a few large entries and a few loud channels, as trained models have."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * torch.randn(parameter.shape, generator=generator))
                loud = torch.randint(len(parameter), (2,), generator=generator)
                parameter[loud] *= 3
                continue
            values = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
            rare = torch.rand(parameter.shape, generator=generator) < 0.004
            values = torch.where(rare, values * 6, values)
            if "embed_tokens" in name or "lm_head" in name:
                values *= 4
            if "q_proj" in name or "k_proj" in name or name.endswith("mlp.gate.weight"):
                values *= 1.6  # attention that is not uniform, routers that are not undecided
            parameter.copy_(values)


def store(model, weights: str) -> dict[str, torch.Tensor]:
    """Rounds the model's weights to what the file will hold; returns the file's tensors under packed names."""
    tensors = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if weights == "F8_E4M3" and ".experts." in name:
                values, scale = quantize_weight(parameter)
                parameter.copy_(dequantize(values, scale))
                tensors[name], tensors[name + "_scale"] = values, scale
            else:
                tensors[name] = parameter.clone() if weights == "F32" else parameter.to(torch.bfloat16)
                parameter.copy_(tensors[name])
    return tensors


def unfuse(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One tensor per expert and projection, as published checkpoints have them."""
    result = {}
    for name, tensor in tensors.items():
        if ".experts." not in name:
            result[name] = tensor
            continue
        prefix, _, projection = name.rpartition(".")
        suffix = "weight_scale" if projection.endswith("_scale") else "weight"
        parts = {"down_proj": tensor} if projection.startswith("down_proj") else dict(zip(("gate_proj", "up_proj"), tensor.chunk(2, dim=1)))
        for part, stack in parts.items():
            for expert, matrix in enumerate(stack):
                result[f"{prefix}.{expert}.{part}.{suffix}"] = matrix.contiguous()
    return result


def save_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    names = sorted(tensors)
    if shards == 1:
        save_file({name: tensors[name].contiguous() for name in names}, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name].contiguous() for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


@torch.no_grad()
def run(model, tokens: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """Returns (logits [T, V], least router margin, largest share of one expert)."""
    margins, shares = [], []

    def look(module, _inputs, output):
        logits, _, selected = output
        ordered = logits.sort(-1, descending=True).values
        if module.top_k < module.num_experts:
            margins.append((ordered[:, module.top_k - 1] - ordered[:, module.top_k]).min().item())
            shares.append(torch.bincount(selected.flatten()).max().item() / selected.numel())

    hooks = [layer.mlp.gate.register_forward_hook(look) for layer in model.model.layers if hasattr(layer.mlp, "experts")]
    logits = model(input_ids=tokens[None], use_cache=False).logits[0].float()
    for hook in hooks:
        hook.remove()
    return logits, min(margins, default=1.0), max(shares, default=0.0)


def build(name: str, seed: int):
    """One attempt: (model, tensors of the file, tokens, logits, margin, share)."""
    options, config = CASES[name], config_json(name)
    model_config = reference_config(config)
    model_config._attn_implementation = "eager"
    model_config._experts_implementation = "eager"
    model = Cohere2MoeForCausalLM(model_config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    random_weights(model, generator)
    tokens = torch.randint(7, config["vocab_size"], (options["tokens"],), generator=generator)
    quantised = options["weights"] == "F8_E4M3"
    modeling_cohere2_moe.Cohere2MoeExperts.forward = quantized_experts_forward if quantised else PLAIN_EXPERTS_FORWARD
    with torch.no_grad():
        model.model.norm.weight.mul_(LOGIT_SPREAD / run(model, tokens)[0].std())
    tensors = store(model, options["weights"])
    return (model, tensors, tokens, *run(model, tokens))


def make(name: str, number: int) -> str:
    options, config = CASES[name], config_json(name)
    for attempt in range(200):
        model, tensors, tokens, logits, margin, share = build(name, seed=1000 * number + attempt)
        if margin > ROUTER_MARGIN[options["weights"]] and share < 0.75:
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear routing")
    if options["weights"] == "F8_E4M3":
        kinds = model.config.mlp_layer_types
        config["quantization_config"] = quantization_config([i for i, kind in enumerate(kinds) if kind == "dense"])
    if name.startswith("tied_with_copy"):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    folder = OUTPUT / name
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    save_checkpoint(folder, tensors if options["layout"] == "packed" else unfuse(tensors), options["shards"])
    save_file({"tokens": tokens, "logits": logits.contiguous()}, folder / "expected.safetensors", metadata={"format": "pt"})
    reloaded = check_by_reloading(folder, tokens, logits) if options["weights"] != "F8_E4M3" else "not reloaded"
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"{name:26} {size:8} bytes  attempt {attempt:3}  logit std {logits.std():.2f}  margin {margin:.4f}  {reloaded}"


def check_by_reloading(folder: Path, tokens: torch.Tensor, logits: torch.Tensor) -> str:
    """The saved files, loaded by transformers itself, give the same logits: names and shapes are right."""
    config = reference_config(json.loads((folder / "config.json").read_text()))
    model, report = Cohere2MoeForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager", output_loading_info=True
    )
    missing = set(report["missing_keys"]) | set(report["unexpected_keys"]) - {"lm_head.weight"}
    difference = (run(model, tokens)[0] - logits).abs().max().item()
    assert not missing and difference < 1e-4, (folder.name, missing, difference)
    return f"reloaded within {difference:.1e}"


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    for number, name in enumerate(CASES):
        print(make(name, number), flush=True)
    print(sum(file.stat().st_size for file in OUTPUT.rglob("*") if file.is_file()), "bytes in all")


if __name__ == "__main__":
    main()
