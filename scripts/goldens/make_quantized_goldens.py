"""Writes tests/goldens/quantized: random small models in quantised formats, and the logits of transformers.

    python scripts/goldens/make_quantized_goldens.py [case ...]

The weights are coded, and widened again for the reference, by the package compressed-tensors; FP8 with a
`weight_scale_inv` is widened by transformers. The reference then runs in f32 on the widened weights and on inputs that
are not quantised, but where `quantized_cases.py` says otherwise.
"""

import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor
from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from float8 import E4M3_MAX, quantized_experts_forward
from make_decoder_goldens import EAGER, LAST_ROWS, ROUTER_MARGIN, ROW_STEP, random_weights, run, unfuse
from make_goldens import LOGIT_SPREAD, save_checkpoint, write_json
from quantized_cases import CASES, config_json

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "quantized"
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
COMPRESSORS = {
    "float-quantized": NaiveQuantizationCompressor,
    "int-quantized": NaiveQuantizationCompressor,
    "pack-quantized": PackedQuantizationCompressor,
    "nvfp4-pack-quantized": NVFP4PackedCompressor,
}
# What quantises inputs wherever routers decide must not be so near.
ROUTER_MARGIN_FP8 = 3e-3


def tiles(weight: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Largest magnitude of each tile."""
    pad = (0, -weight.shape[1] % columns, 0, -weight.shape[0] % rows)
    padded = torch.nn.functional.pad(weight.abs(), pad)
    return padded.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).amax((1, 3))


def fine_grained(weight: torch.Tensor, section: dict) -> tuple[dict, torch.Tensor]:
    """E4M3 with a scale for each block, or for all: (tensors of the file, widened weight)."""
    block = section["weight_block_size"]
    rows, columns = block or weight.shape
    scale = tiles(weight, rows, columns) / E4M3_MAX
    repeated = scale.repeat_interleave(rows, 0)[: len(weight)].repeat_interleave(columns, 1)[:, : weight.shape[1]]
    codes = (weight / repeated).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    if block is None:
        scale = scale.reshape(())
    tensors = {"weight": codes, "weight_scale_inv": scale}
    if section["activation_scheme"] == "static":
        tensors["activation_scale"] = torch.tensor(0.02)
    return tensors, _dequantize_fp8_weight(codes, scale, block, torch.float32)


def e2m1(packed: torch.Tensor) -> torch.Tensor:
    """The numbers of packed codes, of which the first is in the low bits."""
    magnitudes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    codes = torch.stack([packed & 15, packed >> 4], -1).flatten(1).long()
    return magnitudes[codes & 7] * torch.where(codes & 8 > 0, -1.0, 1.0)


def compressed(weight: torch.Tensor, group: dict, scale_type: torch.dtype) -> tuple[dict, torch.Tensor]:
    """The same, as compressed-tensors does it."""
    arguments = QuantizationArgs(**group["weights"])
    scheme = QuantizationScheme(targets=group["targets"], weights=arguments, format=group["format"])
    rows, columns = {
        "tensor": weight.shape,
        "channel": (1, weight.shape[1]),
        "block": arguments.block_structure,
        "group": (1, arguments.group_size),
        "tensor_group": (1, arguments.group_size),
    }[arguments.strategy]
    largest = tiles(weight, rows, columns)
    state = {"weight": weight.clone()}
    if arguments.strategy == "tensor_group":
        divisor = E4M3_MAX * 6.0 / weight.abs().max().reshape(1)
        state["weight_global_scale"] = divisor
        scale = (largest / 6.0 * divisor).to(torch.float8_e4m3fn).float()
    else:
        steps = {("float", 8): E4M3_MAX, ("int", 8): 127.5, ("int", 4): 7.5}[arguments.type, arguments.num_bits]
        scale = (largest / steps).to(scale_type).float()
    state["weight_scale"] = scale.reshape(1) if arguments.strategy == "tensor" else scale
    compressor = COMPRESSORS[group["format"]]
    tensors = compressor.compress(state, scheme)
    widened = compressor.decompress({**tensors, "weight_scale": tensors["weight_scale"].float()}, scheme)["weight"]
    if arguments.strategy != "tensor_group":
        tensors["weight_scale"] = tensors["weight_scale"].to(scale_type)
    else:
        tensors["input_global_scale"] = torch.tensor([300.0])
        # Not what `decompress` gives, which is rounded to BF16.
        scale = tensors["weight_scale"].float() / divisor
        widened = e2m1(tensors["weight_packed"]) * scale.repeat_interleave(arguments.group_size, 1)
    return tensors, widened.float()


def matches(patterns: list[str], module: str) -> bool:
    return any(re.match(pattern[3:], module) if pattern.startswith("re:") else pattern in (module, "Linear") for pattern in patterns)


def quantize(module: str, weight: torch.Tensor, options: dict) -> tuple[dict, torch.Tensor] | None:
    section = options["section"]
    if section is None or weight.dim() != 2 or re.search(r"embed_tokens|lm_head|mlp\.gate$", module):
        return None
    if section["quant_method"] == "fp8":
        return fine_grained(weight, section)
    if matches(section["ignore"], module):
        return None
    group = next(group for group in section["config_groups"].values() if matches(group["targets"], module))
    return compressed(weight, group, TYPES[options["scales"]])


def store(model, options: dict) -> dict[str, torch.Tensor]:
    """Rounds the model's weights to what the file will hold; returns the file's tensors."""
    tensors, widened = {}, {}
    for name, weight in unfuse(dict(model.state_dict()), model.config.model_type).items():
        module = name.removesuffix(".weight")
        coded = quantize(module, weight, options)
        if coded is None:
            tensors[name] = weight.to(TYPES[options["weights"]])
            widened[name] = tensors[name].float()
        else:
            tensors.update({f"{module}.{part}": tensor for part, tensor in coded[0].items()})
            widened[name] = coded[1]
    with torch.no_grad():
        for name, parameter in model.state_dict(keep_vars=True).items():
            found = re.fullmatch(r"(.*\.experts)\.(gate_up_proj|down_proj)", name)
            if not found:
                parameter.copy_(widened[name])
                continue
            for expert, matrix in enumerate(parameter):
                part = lambda projection: widened[f"{found[1]}.{expert}.{projection}.weight"]
                matrix.copy_(part("down_proj") if found[2] == "down_proj" else torch.cat([part("gate_proj"), part("up_proj")]))
    return tensors


def build(name: str, folder: Path, seed: int):
    """One attempt: (tensors of the file, tokens, logits, margin of routers, margin of indexers)."""
    options = CASES[name]
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **EAGER).eval()
    generator = torch.Generator().manual_seed(seed)
    random_weights(model, generator)
    tokens = torch.randint(3, config.vocab_size, (options["tokens"],), generator=generator)
    with torch.no_grad():
        model.model.norm.weight.mul_(LOGIT_SPREAD / run(model, tokens)[0].std())
    tensors = store(model, options)
    return (tensors, tokens, *run(model, tokens))


def make(name: str) -> str:
    quantises_inputs = name == "fp8_tensor_token_experts"
    original = Qwen3MoeExperts.forward
    if quantises_inputs:
        Qwen3MoeExperts.forward = quantized_experts_forward
    with TemporaryDirectory() as scratch:
        write_json(Path(scratch) / "config.json", config_json(name))
        for attempt in range(200):
            seed = sum(name.encode()) * 1000 + attempt
            tensors, tokens, logits, margin, _ = build(name, Path(scratch), seed)
            if margin > (ROUTER_MARGIN_FP8 if quantises_inputs else ROUTER_MARGIN):
                break
        else:
            raise SystemExit(f"{name}: no seed gives clear routing")
    Qwen3MoeExperts.forward = original
    folder = OUTPUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    section = CASES[name]["section"]
    config = config_json(name) | ({"quantization_config": section} if section else {})
    if whole := CASES[name].get("within"):
        config = {"model_type": whole, "text_config": config, "tie_word_embeddings": False}
        tensors = {f"language_model.{part}": tensor for part, tensor in tensors.items()}
    write_json(folder / "config.json", config)
    save_checkpoint(folder, tensors, 1)
    last = len(tokens) - LAST_ROWS
    positions = torch.tensor([*range(0, last, ROW_STEP), *range(last, len(tokens))])
    expected = {"tokens": tokens, "positions": positions, "logits": logits[positions].contiguous()}
    save_file(expected, folder / "expected.safetensors", metadata={"format": "pt"})
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"{name:28} {size:7} bytes  attempt {attempt:3}  logit std {logits.std():.2f}  margin {margin:.4f}"


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        print(make(name), flush=True)
    print(sum(file.stat().st_size for file in OUTPUT.rglob("*") if file.is_file()), "bytes in all")


if __name__ == "__main__":
    main()
