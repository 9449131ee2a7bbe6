#!/usr/bin/env python3
"""Lists the fields of `config.json` that each family's reference implementation reads.

    python scripts/goldens/reference_fields.py TRANSFORMERS > tests/goldens/reference_fields.json

TRANSFORMERS is the folder `transformers` of the release that requirements.txt pins, unpacked from its
wheel: the sources are parsed, nothing is imported, so it needs neither torch nor transformers.

A field counts as read if the configuration's class declares it, takes it from its arguments, or maps
it to another, or if the code of the model looks it up in a configuration. What the shared code of
attention masks, caches and rotary embeddings looks up counts for every family (`any_model`).
"""

import ast
import json
import sys
from pathlib import Path

# By Backstop's name: the folder of the reference implementation, and the class in it.
FAMILIES = {
    "cohere": ("cohere", "CohereConfig"),
    "cohere2": ("cohere2", "Cohere2Config"),
    "cohere2_moe": ("cohere2_moe", "Cohere2MoeConfig"),
    "deepseek_v3": ("deepseek_v3", "DeepseekV3Config"),
    "glm4_moe_lite": ("glm4_moe_lite", "Glm4MoeLiteConfig"),
    "glm_moe_dsa": ("glm_moe_dsa", "GlmMoeDsaConfig"),
    "gpt_oss": ("gpt_oss", "GptOssConfig"),
    "granite": ("granite", "GraniteConfig"),
    # Has no class of its own: it is computed as DeepSeek-V3.
    "kimi_k2": ("deepseek_v3", "DeepseekV3Config"),
    "kimi_k25": ("kimi_k25", "Kimi_K25Config"),
    "llama": ("llama", "LlamaConfig"),
    "mistral": ("mistral", "MistralConfig"),
    "mixtral": ("mixtral", "MixtralConfig"),
    "phi3": ("phi3", "Phi3Config"),
    "qwen2": ("qwen2", "Qwen2Config"),
    "qwen3": ("qwen3", "Qwen3Config"),
    "qwen3_moe": ("qwen3_moe", "Qwen3MoeConfig"),
    "smollm3": ("smollm3", "SmolLM3Config"),
}
SHARED = ["masking_utils.py", "cache_utils.py", "modeling_rope_utils.py"]
CONFIGURATIONS = {"config", "layer_config", "effective_config"}


def is_configuration(node):
    """Whether an expression is `config`, `self.config` and the like."""
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
    return name in CONFIGURATIONS


def text(node):
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def looked_up(tree):
    """Names that code looks up in a configuration."""
    methods = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if is_configuration(node.func.value)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_configuration(node.value):
            if node.attr not in methods:
                yield node.attr
        if not isinstance(node, ast.Call) or not node.args:
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "getattr":
            if is_configuration(node.args[0]) and text(node.args[1]):
                yield text(node.args[1])


def taken(configuration):
    """Names that a class takes from its arguments."""
    for node in ast.walk(configuration):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr in ("pop", "get") and getattr(node.func.value, "id", None) == "kwargs":
                if text(node.args[0]):
                    yield text(node.args[0])


def declared(configuration):
    """Fields of a class, and other names for them."""
    for node in configuration.body:
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.dump(node.annotation):
            yield node.target.id
        if isinstance(node, ast.Assign) and node.targets[0].id == "attribute_map":
            for key, value in zip(node.value.keys, node.value.values):
                yield from (text(key), text(value))


def parse(path):
    return ast.parse(path.read_text())


def fields_of(transformers, folder, class_name):
    at = transformers / "models" / folder
    configuration = parse(at / f"configuration_{folder}.py")
    [the_class] = [
        node
        for node in ast.walk(configuration)
        if isinstance(node, ast.ClassDef) and node.name == class_name
    ]
    names = {*declared(the_class), *taken(the_class), *looked_up(the_class)}
    if "text_config" in names:
        # The code reads the configurations within.
        return names
    return names | set(looked_up(parse(at / f"modeling_{folder}.py")))


def public(names):
    return sorted(name for name in names if not name.startswith("_"))


def main():
    transformers = Path(sys.argv[1])
    shared = {name for file in SHARED for name in looked_up(parse(transformers / file))}
    families = {
        name: public(fields_of(transformers, *reference) - shared)
        for name, reference in FAMILIES.items()
    }
    json.dump({"any_model": public(shared), "families": families}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
