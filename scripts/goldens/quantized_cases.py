"""The quantised goldens: small models whose linear layers are stored in every supported number format.

`config` is as in `decoder_cases.py`, `section` the `quantization_config`, `scales` the element type of scales. A group
of compressed-tensors is given as what its `weights` say, with `format`, `targets` and whether inputs are quantised.
`within` is the name of the model of which this is the text model.
"""

from decoder_cases import ABSENT, BASE, CARD, case, deepseek_v3

TARGETS = ["Linear"]
TOKEN = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True, "symmetric": True}
INT_TOKEN = {**TOKEN, "type": "int"}


def group(format: str, bits: int, kind: str, strategy: str, targets: list[str] = TARGETS, inputs: dict | None = None, **more) -> dict:
    weights = {"num_bits": bits, "type": kind, "strategy": strategy, "dynamic": False, "symmetric": True, "group_size": None, "observer": "minmax", **more}
    return {"format": format, "targets": targets, "weights": weights, "input_activations": inputs, "output_activations": None}


def compressed(*groups: dict, ignore: tuple[str, ...] = ("lm_head", "re:.*mlp.gate$")) -> dict:
    formats = {group["format"] for group in groups}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "ignore": list(ignore),
        "config_groups": {f"group_{index}": group for index, group in enumerate(groups)},
    }


def fp8(block: list[int] | None, activations: str) -> dict:
    return {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": activations, "weight_block_size": block, "modules_to_not_convert": ["lm_head"]}


def llama(section: dict | None, scales: str = "F32", weights: str = "BF16", **config) -> dict:
    return {**case("Llama", "llama", weights=weights, **{**CARD, **config}), "section": section, "scales": scales}


def qwen3_moe(section: dict, scales: str = "F32", **config) -> dict:
    """A dense layer and one with experts."""
    shape = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True, "mlp_only_layers": [0], **CARD}
    return {**case("Qwen3Moe", "qwen3_moe", **{**shape, **config}), "section": section, "scales": scales}


# As Kimi K2 and its successors are published: nothing but routed experts.
EXPERTS_ALONE = ("lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*")


def kimi_k25(section: dict, scales: str = "BF16") -> dict:
    """Its text model, which says how it is quantised."""
    config = {"hidden_size": 64, "moe_intermediate_size": 64, "n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 0}
    return {**deepseek_v3(**config), "section": section, "scales": scales, "within": "kimi_k25"}


CASES = {
    "f16": llama(None, weights="F16"),
    # Tiles that end within rows and columns, and blocks of 32 and of 128.
    "fp8_blocks": qwen3_moe(fp8([128, 128], "dynamic"), hidden_size=160, moe_intermediate_size=160),
    "fp8_tensor_static": llama(fp8(None, "static")),
    "fp8_mixed_dense": llama(
        compressed(
            group("float-quantized", 8, "float", "channel", ["re:.*self_attn.*"], TOKEN),
            group("float-quantized", 8, "float", "block", ["re:.*mlp.(gate|up)_proj"], block_structure=[32, 32]),
            group("float-quantized", 8, "float", "tensor", ["re:.*down_proj"], TOKEN),
        ),
        scales="BF16",
    ),
    "fp8_tensor_experts": qwen3_moe(compressed(group("float-quantized", 8, "float", "tensor"))),
    # The one case whose reference quantises the inputs of experts, too.
    "fp8_tensor_token_experts": qwen3_moe(compressed(group("float-quantized", 8, "float", "tensor", inputs=TOKEN), ignore=("lm_head", "re:.*mlp.gate$", "re:.*self_attn.*", "re:.*layers.0.mlp.*"))),
    "int8_channel": llama(compressed(group("int-quantized", 8, "int", "channel", inputs=INT_TOKEN)), scales="BF16"),
    "int8_packed_experts": qwen3_moe(compressed(group("pack-quantized", 8, "int", "group", group_size=32))),
    "int4_group_128": llama(compressed(group("pack-quantized", 4, "int", "group", group_size=128, actorder="static")), scales="F16", hidden_size=128, intermediate_size=256),
    "int4_channel": llama(compressed(group("pack-quantized", 4, "int", "channel"))),
    "int4_experts": qwen3_moe(compressed(group("pack-quantized", 4, "int", "group", group_size=32), ignore=("lm_head", "re:.*mlp.gate$", "re:.*self_attn.*")), scales="BF16"),
    "int4_kimi_k25": kimi_k25(compressed(group("pack-quantized", 4, "int", "group", group_size=32), ignore=EXPERTS_ALONE)),
    "nvfp4_experts": qwen3_moe(compressed(group("nvfp4-pack-quantized", 4, "float", "tensor_group", group_size=16, inputs={"num_bits": 4, "type": "float", "strategy": "tensor_group", "dynamic": "local", "group_size": 16, "symmetric": True}))),
}


def config_json(name: str) -> dict:
    """The case's config.json, without the quantisation."""
    merged = {**BASE, **CASES[name]["config"]}
    return {key: value for key, value in merged.items() if value is not ABSENT}
