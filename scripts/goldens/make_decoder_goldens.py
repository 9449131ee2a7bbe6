"""Writes tests/goldens/decoders: random small models and the logits that transformers computes for them.

    python scripts/goldens/make_decoder_goldens.py [case ...]

The reference runs in f32 on the CPU with eager attention, on the weights exactly as stored (BF16 is widened first).
The files are loaded again by transformers itself, with the same logits: names and shapes are right.
"""

import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, Mxfp4Config
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from decoder_cases import CASES, config_json
from make_goldens import LOGIT_SPREAD, save_checkpoint, write_json

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "decoders"
# The least distance between the last chosen expert and the next: an implementation that is right must not pick another
# expert because it adds in another order.
ROUTER_MARGIN = 5e-4
# The same for the keys that an indexer selects, in standard deviations of the query's scores.
INDEXER_MARGIN = 1e-4
# Rows of logits that are kept: all of the end, where windows and scaled positions matter, and some before.
LAST_ROWS = 24
ROW_STEP = 7
# What reads images as well, of which only the text is computed.
NESTED = ("kimi_k25",)
EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}


def random_weights(model, generator: torch.Generator) -> None:
    """Normal weights of unit gain with heavy tails, gains around one, and biases that are not small."""
    with torch.no_grad():
        for name, parameter in model.state_dict(keep_vars=True).items():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("e_score_correction_bias"):
                parameter.copy_(0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.7 * noise)
            elif name.endswith("sinks"):
                parameter.copy_(2 + noise)  # as heavy as several keys
            elif parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * noise)
                parameter[torch.randint(len(parameter), (2,), generator=generator)] *= 2
            else:
                # gpt-oss stores experts with inputs before outputs.
                inputs = parameter.shape[-2 if model.config.model_type == "gpt_oss" and "experts" in name else -1]
                values = noise * inputs ** -0.5
                rare = torch.rand(parameter.shape, generator=generator) < 0.004
                values = torch.where(rare, values * 6, values)
                if "embed_tokens" in name or "lm_head" in name:
                    values *= 4
                if "q_proj" in name or "k_proj" in name or name.endswith(("gate.weight", "router.weight")) or "_b_proj" in name:
                    values *= 1.6  # attention that is not uniform, routers that are not undecided
                if "_a_proj" in name and model.config.model_type == "glm_moe_dsa":
                    values *= 0.03  # latents so small that their norms' epsilon matters
                parameter.copy_(values)


def store(model, options: dict) -> dict[str, torch.Tensor]:
    """Rounds the model's weights to what the file will hold; returns the file's tensors."""
    tensors = {}
    with torch.no_grad():
        for name, parameter in model.state_dict(keep_vars=True).items():
            if options["weights"] == "MXFP4" and name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                blocks, scales = quantize_to_mxfp4(parameter.transpose(1, 2))
                parameter.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
                tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
                continue
            stored = parameter.clone() if options["weights"] == "F32" else parameter.to(torch.bfloat16)
            parameter.copy_(stored)
            tensors[name] = stored
    if model.config.model_type in NESTED:
        return as_published(model, tensors)
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    return tensors if options["packed"] else unfuse(tensors, model.config.model_type)


def as_published(model, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as transformers itself writes them, under the names of the published checkpoints where it departs from them."""
    with TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        saved = load_file(Path(scratch) / "model.safetensors")
    element_type = next(iter(tensors.values())).dtype
    renamed = {name.replace("language_model.model.blocks.", "language_model.model.layers."): tensor for name, tensor in saved.items()}
    return {name.removeprefix("model."): tensor.to(element_type) for name, tensor in renamed.items()}


def quantize_to_mxfp4(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of 32 of the last dimension (bytes of two E2M1 codes, the low one first) and their E8M0 scales."""
    blocks = weights.unflatten(-1, (-1, 32))
    # The largest magnitude of a block lies between 4 and 8, of which 6 can be stored.
    exponents = blocks.abs().amax(-1).log2().floor() - 2
    scaled = blocks / exponents.exp2()[..., None]
    magnitudes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    codes = (scaled.abs()[..., None] - magnitudes).abs().argmin(-1) + 8 * (scaled < 0)
    return (codes[..., ::2] + 16 * codes[..., 1::2]).to(torch.uint8), (exponents + 127).to(torch.uint8)


def unfuse(tensors: dict[str, torch.Tensor], model_type: str) -> dict[str, torch.Tensor]:
    """One tensor per expert and projection, under the names of published checkpoints."""
    names = ("w1", "w3", "w2") if model_type == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    result = {}
    for name, tensor in tensors.items():
        if model_type == "mixtral":
            name = name.replace(".mlp.", ".block_sparse_moe.")
        found = re.fullmatch(r"(.*\.experts)\.(gate_up_proj|down_proj)", name)
        if not found:
            result[name] = tensor
            continue
        parts = {names[2]: tensor} if found[2] == "down_proj" else dict(zip(names[:2], tensor.chunk(2, dim=1)))
        for part, stack in parts.items():
            for expert, matrix in enumerate(stack):
                result[f"{found[1]}.{expert}.{part}.weight"] = matrix.contiguous()
    return result


def lead(keys: torch.Tensor, chosen: int) -> float:
    """The least distance between the last that is chosen and the next."""
    if chosen == keys.shape[-1]:
        return 1.0
    ordered = keys.sort(-1, descending=True).values
    return (ordered[:, chosen - 1] - ordered[:, chosen]).min().item()


class SelectionLeads(TorchFunctionMode):
    """Notes, for each call of `topk` on scores [1, T, T], the least distance between the last selected and the next."""

    def __init__(self, leads: list[float]):
        super().__init__()
        self.leads = leads

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.topk:
            scores, chosen = args
            for position in range(chosen, len(scores[0])):
                visible = scores[0, position, : position + 1]
                self.leads.append(lead(visible[None], chosen) / visible.std().item())
        return function(*args, **(kwargs or {}))


def watch_selection(indexer, leads: list[float]) -> None:
    """Has the indexer note its leads."""
    forward = type(indexer).forward

    def watched(*args, **options):
        with SelectionLeads(leads):
            return forward(indexer, *args, **options)

    indexer.forward = watched


def text_model(model):
    """What computes tokens, without the head."""
    return getattr(model.model, "language_model", model.model)


def auto_class(model_type: str):
    return AutoModelForImageTextToText if model_type in NESTED else AutoModelForCausalLM


@torch.no_grad()
def run(model, tokens: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """Returns (logits [T, V], least router margin, least margin of selected keys)."""
    margins, leads = [], []

    def look(module, _inputs, output):
        keys = output[0]
        if hasattr(module, "e_score_correction_bias"):
            keys = keys.sigmoid() + module.e_score_correction_bias
            groups = keys.view(len(keys), module.num_group, -1)
            scores = groups.topk(2, dim=-1).values.sum(-1)
            margins.append(lead(scores, module.topk_group))
            chosen = torch.zeros_like(scores).scatter(1, scores.topk(module.topk_group).indices, 1)
            keys = groups.masked_fill(chosen[..., None] == 0, float("-inf")).flatten(1)
        margins.append(lead(keys, module.top_k))

    routers = [getattr(layer.mlp, "gate", getattr(layer.mlp, "router", None)) for layer in text_model(model).layers]
    hooks = [router.register_forward_hook(look) for router in routers if router is not None]
    for layer in text_model(model).layers:
        if indexer := getattr(layer.self_attn, "indexer", None):
            watch_selection(indexer, leads)
    logits = model(input_ids=tokens[None], use_cache=False).logits[0].float()
    for hook in hooks:
        hook.remove()
    return logits, min(margins, default=1.0), min(leads, default=1.0)


def build(name: str, folder: Path, seed: int):
    """One attempt: (model, tensors of the file, tokens, logits, margin of routers, margin of indexers)."""
    options = CASES[name]
    config = AutoConfig.from_pretrained(folder)
    vars(config).pop("quantization_config", None)
    model = auto_class(config.model_type).from_config(config, dtype=torch.float32, **EAGER).eval()
    generator = torch.Generator().manual_seed(seed)
    random_weights(model, generator)
    tokens = torch.randint(3, config.get_text_config().vocab_size, (options["tokens"],), generator=generator)
    with torch.no_grad():
        text_model(model).norm.weight.mul_(LOGIT_SPREAD / run(model, tokens)[0].std())
    tensors = store(model, options)
    return (model, tensors, tokens, *run(model, tokens))


def make(name: str) -> str:
    folder = OUTPUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config_json(name))
    for attempt in range(200):
        seed = sum(name.encode()) * 1000 + attempt
        model, tensors, tokens, logits, margin, selection = build(name, folder, seed)
        if margin > ROUTER_MARGIN and selection > INDEXER_MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear routing and selection")
    with TemporaryDirectory() as scratch:
        model.config.save_pretrained(scratch)
        shutil.copy(Path(scratch) / "config.json", folder / "config_as_saved.json")
    save_checkpoint(folder, tensors, CASES[name]["shards"])
    last = len(tokens) - LAST_ROWS
    positions = torch.tensor([*range(0, last, ROW_STEP), *range(last, len(tokens))])
    expected = {"tokens": tokens, "positions": positions, "logits": logits[positions].contiguous()}
    save_file(expected, folder / "expected.safetensors", metadata={"format": "pt"})
    published = CASES[name].get("published", {})
    renamed = "model_type" in published  # which transformers does not know
    if not renamed:
        write_json(folder / "config.json", {**config_json(name), **published})
    difference = check_by_reloading(folder, tokens, logits)
    if published:
        write_json(folder / "config.json", {**config_json(name), **published})
        (folder / "config_as_saved.json").unlink()
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"{name:28} {size:7} bytes  attempt {attempt:3}  logit std {logits.std():.2f}  margin {margin:.4f}  selection {selection:.4f}  reloaded within {difference:.1e}"


def check_by_reloading(folder: Path, tokens: torch.Tensor, logits: torch.Tensor) -> float:
    """The saved files, loaded by transformers itself, give the same logits."""
    quantised = CASES[folder.name]["weights"] == "MXFP4"
    options = {"quantization_config": Mxfp4Config(dequantize=True)} if quantised else {}
    model_class = auto_class(CASES[folder.name]["config"]["model_type"])
    model, report = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **EAGER, **options)
    missing = set(report["missing_keys"]) | set(report["unexpected_keys"])
    difference = (run(model.eval(), tokens)[0] - logits).abs().max().item()
    assert not missing and difference < 1e-4, (folder.name, missing, difference)
    return difference


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        print(make(name), flush=True)
    print(sum(file.stat().st_size for file in OUTPUT.rglob("*") if file.is_file()), "bytes in all")


if __name__ == "__main__":
    main()
