#!/usr/bin/env python3
"""Rounds a GGUF of the Llama family to BF16, as a GGUF and as a Hugging Face checkpoint.

    scripts/models/smollm2.sh DIRECTORY
    scripts/models/smollm2_bf16.py DIRECTORY/SmolLM2-135M-Instruct.Q4_1.gguf DIRECTORY

Writes DIRECTORY/NAME-BF16.gguf and DIRECTORY/NAME-BF16/ with config.json, generation_config.json,
model.safetensors, tokenizer.json and tokenizer_config.json. Both hold the same numbers: the dequantised
weights, rounded to nearest. Norms stay F32 in the GGUF, as llama.cpp wants them. Needs the Python package
gguf (0.19).
"""

import argparse
import json
import struct
from pathlib import Path

import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

BF16 = GGMLQuantizationType.BF16
CONTROL, USER_DEFINED = 3, 4

# Names of a GGUF's tensors, and where a checkpoint of transformers keeps them.
OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def checkpoint_name(name: str) -> str:
    """The name in a checkpoint of transformers; an unknown tensor is an error."""
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}"


def rotate_halves(weights: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Rows of queries or keys from neighbouring pairs (GGUF) to halves (transformers)."""
    rows, columns = weights.shape
    pairs = weights.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def write_safetensors(path: Path, tensors: dict[str, numpy.ndarray]) -> None:
    """Writes matrices whose bytes are BF16 already, in the file format of safetensors."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, bytes_of in tensors.items():
        shape = [*bytes_of.shape[:-1], bytes_of.shape[-1] // 2]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + bytes_of.nbytes]}
        end += bytes_of.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for bytes_of in tensors.values():
            file.write(numpy.ascontiguousarray(bytes_of).tobytes())


class Source:
    """A GGUF of the Llama family with a byte-level tokenizer."""

    def __init__(self, path: Path):
        self.reader = GGUFReader(path)
        if self.field("general.architecture") != "llama" or self.field("tokenizer.ggml.pre") != "smollm":
            raise SystemExit(f"{path} is not of the Llama family with SmolLM's tokenizer")

    def field(self, name: str):
        return self.reader.fields[name].contents()

    def rounded(self):
        """Names and BF16 bytes, rows by bytes, of all tensors."""
        for tensor in self.reader.tensors:
            values = dequantize(tensor.data, tensor.tensor_type)
            yield tensor.name, quantize(values, BF16).view(numpy.uint8)


def write_gguf(source: Source, path: Path) -> None:
    """The same metadata, and matrices in BF16."""
    writer = GGUFWriter(path, source.field("general.architecture"))
    made_by_writer = {"general.architecture", "general.file_type", "general.quantization_version"}
    for name, field in source.reader.fields.items():
        if name.startswith("GGUF.") or name in made_by_writer:
            continue
        element = field.types[1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], element)
    writer.add_file_type(32)  # mostly BF16
    for name, bytes_of in source.rounded():
        if bytes_of.ndim == 1:
            values = dequantize(bytes_of, BF16)
            writer.add_tensor(name, values.astype(numpy.float32))
        else:
            writer.add_tensor(name, bytes_of, raw_dtype=BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def configuration(source: Source) -> dict:
    theta = float(source.field("llama.rope.freq_base"))
    names = {tensor.name for tensor in source.reader.tensors}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": source.field("llama.embedding_length"),
        "intermediate_size": source.field("llama.feed_forward_length"),
        "num_hidden_layers": source.field("llama.block_count"),
        "num_attention_heads": source.field("llama.attention.head_count"),
        "num_key_value_heads": source.field("llama.attention.head_count_kv"),
        "head_dim": source.field("llama.rope.dimension_count"),
        "max_position_embeddings": source.field("llama.context_length"),
        "rms_norm_eps": round(float(source.field("llama.attention.layer_norm_rms_epsilon")), 12),
        # Readers differ in which of the two they know.
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "vocab_size": source.field("llama.vocab_size"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": source.field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": source.field("tokenizer.ggml.eos_token_id"),
        "pad_token_id": source.field("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }


def tokenizer(source: Source) -> dict:
    """A `tokenizer.json`. SmolLM splits digits from each other before it splits words."""
    tokens, kinds = source.field("tokenizer.ggml.tokens"), source.field("tokenizer.ggml.token_type")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": token, **flags, "special": kind == CONTROL}
            for index, (token, kind) in enumerate(zip(tokens, kinds))
            if kind in (CONTROL, USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": source.field("tokenizer.ggml.merges"),
        },
    }


def tokenizer_configuration(source: Source) -> dict:
    tokens = source.field("tokenizer.ggml.tokens")

    def named(role: str) -> str:
        return tokens[source.field(f"tokenizer.ggml.{role}_token_id")]

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": named("bos"),
        "eos_token": named("eos"),
        "unk_token": named("unknown"),
        "pad_token": named("padding"),
        "model_max_length": source.field("llama.context_length"),
        "chat_template": source.field("tokenizer.chat_template"),
    }


def write_checkpoint(source: Source, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    config = configuration(source)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for name, bytes_of in source.rounded():
        part = name.split(".")[-2]
        if part in heads:
            bytes_of = rotate_halves(bytes_of, heads[part])
        tensors[checkpoint_name(name)] = bytes_of
    write_safetensors(directory / "model.safetensors", tensors)
    generation = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    documents = {
        "config.json": config,
        "generation_config.json": generation,
        "tokenizer.json": tokenizer(source),
        "tokenizer_config.json": tokenizer_configuration(source),
    }
    for name, document in documents.items():
        (directory / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gguf", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    source = Source(arguments.gguf)
    name = arguments.gguf.name.removesuffix(".gguf").rsplit(".", 1)[0] + "-BF16"
    arguments.directory.mkdir(parents=True, exist_ok=True)
    write_gguf(source, arguments.directory / f"{name}.gguf")
    print(arguments.directory / f"{name}.gguf")
    write_checkpoint(source, arguments.directory / name)
    print(arguments.directory / name)


if __name__ == "__main__":
    main()
