"""Writes tests/goldens/encoders: random small encoders, and what sentence-transformers makes of texts with them.

    python scripts/goldens/encoders.py [case ...]
    python scripts/goldens/encoders.py --shape minilm|base DIRECTORY

The second form writes a random model of a usual size, to measure with.

The reference runs in f32 on the CPU with eager attention, one text at a time, on the weights exactly as stored. For
JinaBERT, which transformers does not have, it is `JinaBert` below: the formulas of jina-bert-implementation in torch.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as vocabularies
from transformers import PreTrainedTokenizerFast

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "encoders"

CORPUS = """The quick brown fox jumps over the lazy dog. A server answers requests as long as it has room for them.
Embeddings are vectors that stand for texts; near vectors stand for texts that say much the same.
How many tokens does a text have? That depends on the tokenizer, which was trained on other texts.
Die Donaudampfschifffahrtsgesellschaft fährt über die grüne Brücke. Les élèves étaient à l'école près de la forêt.
日本語の文章も少しだけ。 Прежде чем отвечать, прочитайте вопрос. Rerankers score pairs: a query, and a document.
In 2024 the price was 1,234.50 euros, or 17% more than in 2019 (see page 42).""".splitlines()
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "",
    "fox",
    "How many tokens does a text have?",
    "Les élèves étaient à l'école; die Brücke ist grün.",
    "日本語 and Прежде, 1,234.50 €\tor\n17%  😀",
    " ".join(CORPUS[:3]),
    " ".join(reversed(" ".join(CORPUS).split())),
    " ".join(CORPUS),
]
PAIRS = [
    ["How many tokens does a text have?", "That depends on the tokenizer."],
    ["fox", "The quick brown fox jumps over the lazy dog."],
    ["fox", "In 2024 the price was 1,234.50 euros."],
    ["", "élèves"],
    ["Rerankers score pairs", ""],
    ["What do rerankers score?", " ".join(CORPUS)],
]


def word_pieces(vocabulary: int) -> Tokenizer:
    """As BERT has them."""
    tokenizer = Tokenizer(vocabularies.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def sentence_pieces(vocabulary: int) -> Tokenizer:
    """As XLM-RoBERTa has them."""
    tokenizer = Tokenizer(vocabularies.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=vocabulary, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def byte_pairs(vocabulary: int) -> Tokenizer:
    """As RoBERTa has them."""
    tokenizer = Tokenizer(vocabularies.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


TOKENIZERS = {"word_pieces": word_pieces, "sentence_pieces": sentence_pieces, "byte_pairs": byte_pairs}
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
DISTIL_SIZE = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
MODERN_SIZE = SIZE | {"num_hidden_layers": 4, "local_attention": 10, "max_position_embeddings": 160}
# name: class of transformers, its configuration, tokenizer, longest text, and what else is special
CASES = {
    # The usual case, and a tokenizer.json that asks for padding and truncation.
    "bert_mean": ("BertModel", SIZE, "word_pieces", 64, {"pooling": "mean", "normalize": True, "pads": True}),
    # Names with a prefix and of old norms, another activation, BF16, a projection.
    "bert_cls_dense": (
        "BertForMaskedLM", SIZE | {"hidden_act": "gelu_new"}, "word_pieces", 128,
        {"pooling": "cls", "dense": 24, "normalize": True, "dtype": torch.bfloat16, "old_norms": True, "old_pooling": True},
    ),
    "bert_reranker": ("BertForSequenceClassification", SIZE | {"num_labels": 1}, "word_pieces", 64, {}),
    # Nothing of sentence-transformers.
    "xlm_roberta_plain": ("XLMRobertaModel", SIZE | {"type_vocab_size": 1}, "sentence_pieces", 100, {"dtype": torch.float16}),
    "xlm_roberta_reranker": (
        "XLMRobertaForSequenceClassification", SIZE | {"type_vocab_size": 1, "num_labels": 1}, "sentence_pieces", 80, {},
    ),
    "roberta_last_and_weighted": (
        "RobertaModel", SIZE | {"type_vocab_size": 1}, "byte_pairs", 150, {"pooling": ["weightedmean", "lasttoken"]},
    ),
    "distilbert_max_and_root": (
        "DistilBertModel", DISTIL_SIZE, "word_pieces", 90, {"pooling": ["max", "mean_sqrt_len_tokens"], "shards": True},
    ),
    "distilbert_reranker": (
        "DistilBertForSequenceClassification", DISTIL_SIZE | {"num_labels": 1}, "word_pieces", 64,
        {"activation": "torch.nn.modules.linear.Identity"},
    ),
    "modernbert_cls": ("ModernBertModel", MODERN_SIZE, "byte_pairs", 150, {"pooling": "cls", "normalize": True}),
    "modernbert_reranker": (
        "ModernBertForSequenceClassification",
        MODERN_SIZE | {"num_labels": 1, "classifier_pooling": "mean", "norm_bias": True, "attention_bias": True,
                       "mlp_bias": True, "classifier_bias": True},
        "byte_pairs", 150, {"published": True},
    ),
    "nomic_bert_mean": ("NomicBertModel", SIZE, "word_pieces", 100, {"pooling": "mean", "dtype": torch.float16}),
    "nomic_bert_published": ("NomicBertModel", SIZE, "word_pieces", 100, {"pooling": "mean", "normalize": True, "published": True}),
    "nomic_bert_reranker": ("NomicBertForSequenceClassification", SIZE | {"num_labels": 1}, "word_pieces", 64, {}),
    # Six heads: no power of two.
    "jina_bert_mean": (
        "JinaBert", SIZE | {"hidden_size": 24, "num_attention_heads": 6}, "word_pieces", 100, {"pooling": "mean"},
    ),
}
SHAPES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {},
}


class JinaBert(torch.nn.Module):
    """jina-bert-implementation's JinaBertModel with ALiBi and GEGLU."""

    class Layer(torch.nn.Module):
        def __init__(self, width: int, middle: int, epsilon: float):
            super().__init__()
            part = torch.nn.ModuleDict
            linear, norm = torch.nn.Linear, torch.nn.LayerNorm
            self.attention = part({
                "self": part({name: linear(width, width) for name in ("query", "key", "value")}),
                "output": part({"dense": linear(width, width), "LayerNorm": norm(width, epsilon)}),
            })
            self.mlp = part({
                "gated_layers": linear(width, 2 * middle, bias=False),
                "wo": linear(middle, width),
                "layernorm": norm(width, epsilon),
            })

        def forward(self, x, bias):
            heads = bias.shape[0]
            inward = self.attention["self"]
            q, k, v = (inward[name](x).unflatten(-1, (heads, -1)).transpose(0, 1) for name in ("query", "key", "value"))
            scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + bias
            seen = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
            x = self.attention["output"]["LayerNorm"](self.attention["output"]["dense"](seen) + x)
            gate, value = self.mlp["gated_layers"](x).chunk(2, -1)
            return self.mlp["layernorm"](self.mlp["wo"](torch.nn.functional.gelu(gate) * value) + x)

    def __init__(self, config):
        super().__init__()
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.config = config
        self.embeddings = torch.nn.ModuleDict({
            "word_embeddings": torch.nn.Embedding(config.vocab_size, width),
            "token_type_embeddings": torch.nn.Embedding(config.type_vocab_size, width),
            "LayerNorm": torch.nn.LayerNorm(width, epsilon),
        })
        layers = [self.Layer(width, config.intermediate_size, epsilon) for _ in range(config.num_hidden_layers)]
        self.encoder = torch.nn.ModuleDict({"layer": torch.nn.ModuleList(layers)})

    def slopes(self) -> torch.Tensor:
        def of(heads):
            if heads & (heads - 1) == 0:
                start = 2 ** (-8 / heads)
                return [start ** (i + 1) for i in range(heads)]
            below = 1 << (heads.bit_length() - 1)
            return of(below) + of(2 * below)[0::2][: heads - below]
        return torch.tensor(of(self.config.num_attention_heads))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Hidden states [T, H] of one text."""
        places = torch.arange(len(tokens))
        bias = -(places[:, None] - places[None, :]).abs() * self.slopes()[:, None, None]
        parts = self.embeddings
        x = parts["LayerNorm"](parts["word_embeddings"](tokens) + parts["token_type_embeddings"].weight[0])
        for layer in self.encoder["layer"]:
            x = layer(x, bias)
        return x


def random_weights(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights of unit gain, gains around one, biases that are not small, and attention that is not uniform."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                is_gain = name.lower().endswith("norm.weight") or "norm1" in name or "norm2" in name
                parameter.copy_(1 + 0.2 * noise if is_gain else 0.3 * noise)
            elif "embeddings" in name:
                parameter.copy_(noise)
            else:
                sharp = any(part in name for part in ("query", "key", "q_lin", "k_lin", "q_proj", "k_proj", "Wqkv"))
                parameter.copy_(noise * parameter.shape[1] ** -0.5 * (1.7 if sharp else 1))


def make_model(kind: str, size: dict, tokenizer: Tokenizer, longest: int, generator) -> torch.nn.Module:
    size = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": longest + 8} | size
    pad = tokenizer.token_to_id("[PAD]")
    size |= {"pad_token_id": pad if pad is not None else tokenizer.token_to_id("<pad>")}
    if kind == "JinaBert":
        model = JinaBert(transformers.BertConfig(**size))
    else:
        model_class = getattr(transformers, kind)
        if kind.startswith("ModernBert"):
            size |= {"bos_token_id": 0, "cls_token_id": 0, "eos_token_id": 2, "sep_token_id": 2}
        config = model_class.config_class(**size)
        config._attn_implementation = "eager"
        model = model_class(config)
    random_weights(model, generator)
    return model.eval()


def save_model(kind: str, model, directory: Path, options: dict) -> None:
    """Saves the model; then changes names, types and configuration to what older or published files have."""
    if kind == "JinaBert":
        save_file(model.state_dict(), directory / "model.safetensors")
        config = model.config.to_dict() | {"architectures": ["JinaBertForMaskedLM"], "model_type": "bert"}
        config |= {"position_embedding_type": "alibi", "feed_forward_type": "geglu"}
        write_json(directory / "config.json", config)
        return
    dtype = options.get("dtype", torch.float32)
    limits = {"max_shard_size": "20KB"} if options.get("shards") else {}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))
    stored = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    model.save_pretrained(directory, state_dict=stored, **limits)
    if options.get("old_norms"):
        path = directory / "model.safetensors"
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        tensors = load_file(path)
        for new, name in old.items():
            tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
        save_file(tensors, path)
    if options.get("published"):
        config = json.loads((directory / "config.json").read_text())
        if kind.startswith("Nomic"):
            names = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
                     "intermediate_size": "n_inner", "max_position_embeddings": "n_positions",
                     "layer_norm_eps": "layer_norm_epsilon"}
            config = {names.get(key, key): value for key, value in config.items() if key not in ("rope_parameters", "head_dim")}
            config |= {"activation_function": "swiglu", "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
                       "rotary_emb_interleaved": False, "prenorm": False, "qkv_proj_bias": False,
                       "mlp_fc1_bias": False, "mlp_fc2_bias": False}
        else:
            config = {key: value for key, value in config.items() if key not in ("rope_parameters", "layer_types")}
            config |= {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
        write_json(directory / "config.json", config)


def save_tokenizer(tokenizer: Tokenizer, directory: Path, longest: int, options: dict) -> PreTrainedTokenizerFast:
    is_bert = tokenizer.token_to_id("[CLS]") is not None
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if is_bert else ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), names))
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if is_bert else ["input_ids", "attention_mask"]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=longest, model_input_names=inputs, **special
    )
    fast.save_pretrained(directory)
    if options.get("pads"):
        tokenizer.enable_truncation(5)
        tokenizer.enable_padding(length=7, pad_id=0, pad_token="[PAD]")
        tokenizer.save(str(directory / "tokenizer.json"))
    return fast


def save_modules(directory: Path, width: int, longest: int, options: dict, generator) -> list:
    """The files of sentence-transformers, and what they do behind the network."""
    if "pooling" not in options:
        return [Pooling(width, pooling_mode="mean")]
    behind = [Pooling(width, pooling_mode=options["pooling"])]
    if "dense" in options:
        behind.append(Dense(width, options["dense"]))
        random_weights(behind[-1], generator)
    if options.get("normalize"):
        behind.append(Normalize())
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for place, module in enumerate(behind, 1):
        name = type(module).__name__
        path = f"{place}_{name}"
        (directory / path).mkdir()
        listed.append({"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{name}"})
        if name != "Normalize":
            module.save(str(directory / path))
    if options.get("old_pooling"):
        write_json(directory / "1_Pooling" / "config.json", {
            "word_embedding_dimension": width, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False,
            "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False,
        })
    write_json(directory / "modules.json", listed)
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    return behind


def vectors(kind: str, model, directory: Path, behind: list, tokens: list) -> list:
    """Of each text alone; compared with what sentence-transformers makes of the saved directory."""
    encoder = model if kind == "JinaBert" else getattr(model, model.base_model_prefix, model)
    rows = []
    with torch.no_grad():
        for ids in tokens:
            ids = torch.tensor(ids)
            hidden = encoder(ids)[None] if kind == "JinaBert" else encoder(input_ids=ids[None]).last_hidden_state
            features = {"token_embeddings": hidden, "attention_mask": torch.ones(hidden.shape[:2], dtype=torch.long)}
            for module in behind:
                features = module(features)
            rows.append(features["sentence_embedding"][0])
    return torch.stack(rows).tolist()


def check_vectors(directory: Path, texts: list, rows: list) -> None:
    saved = SentenceTransformer(str(directory), device="cpu", model_kwargs={"attn_implementation": "eager", "dtype": "float32"})
    again = torch.tensor(saved.encode(texts, batch_size=1))
    difference = (again - torch.tensor(rows)).abs().max().item()
    assert difference < 1e-5, f"{directory.name}: sentence-transformers differs by {difference}"


def write_case(name: str) -> None:
    kind, size, tokenizer_kind, longest, options = CASES[name]
    generator = torch.Generator().manual_seed(sorted(CASES).index(name))
    directory = OUTPUT / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    tokenizer = TOKENIZERS[tokenizer_kind](320)
    model = make_model(kind, size, tokenizer, longest, generator)
    save_model(kind, model, directory, options)
    fast = save_tokenizer(tokenizer, directory, longest, options)
    if kind.endswith("SequenceClassification"):
        expected = scores(model, directory, fast, longest, options)
    else:
        behind = save_modules(directory, model.config.hidden_size, longest, options, generator)
        fast.backend_tokenizer.no_padding()
        tokens = fast(TEXTS, truncation=True, max_length=longest)["input_ids"]
        rows = vectors(kind, model, directory, behind, tokens)
        if kind != "JinaBert" and not options.get("published"):
            check_vectors(directory, TEXTS, rows)
        expected = {"texts": TEXTS, "tokens": tokens, "vectors": rows}
    write_json(directory / "expected.json", {"max_tokens": longest} | expected)
    print(name, sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()))


def scores(model, directory: Path, fast, longest: int, options: dict) -> dict:
    """Of each pair alone, its second text cut; those that fit are compared with CrossEncoder."""
    if "activation" in options:
        config = json.loads((directory / "config.json").read_text())
        write_json(directory / "config.json", config | {"sbert_ce_default_activation_function": options["activation"]})
    rows, tokens, segments = [], [], []
    for pair in PAIRS:
        # As a list: by itself, an empty second text would count as none.
        encoded = fast([pair], truncation="only_second", max_length=longest, return_token_type_ids=True)
        ids, kinds = encoded["input_ids"][0], encoded["token_type_ids"][0]
        given = {"token_type_ids": torch.tensor([kinds])} if "token_type_ids" in fast.model_input_names else {}
        if model.config.model_type == "distilbert":
            given = {}
        with torch.no_grad():
            logit = model(input_ids=torch.tensor([ids]), **given).logits[0, 0]
        rows.append((logit if "activation" in options else logit.sigmoid()).item())
        tokens.append(ids)
        segments.append(kinds.index(1) if given and 1 in kinds else None)
    fit = [place for place, pair in enumerate(PAIRS) if len(fast([pair])["input_ids"][0]) <= longest]
    saved = CrossEncoder(str(directory), device="cpu", model_kwargs={"attn_implementation": "eager"})
    again = saved.predict([PAIRS[place] for place in fit], batch_size=1)
    difference = max(abs(a - rows[place]) for a, place in zip(again.tolist(), fit))
    assert difference < 1e-5, f"{directory.name}: CrossEncoder differs by {difference}"
    return {"pairs": PAIRS, "tokens": tokens, "segments": segments, "scores": rows}


def write_shape(shape: str, directory: Path) -> None:
    """A random BERT of a usual size, with mean pooling."""
    directory.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    tokenizer = word_pieces(400)
    size = {"vocab_size": 30522, "max_position_embeddings": 512} | SHAPES[shape]
    model = make_model("BertModel", size, tokenizer, 504, generator)
    save_model("BertModel", model, directory, {})
    save_tokenizer(tokenizer, directory, 512, {})
    save_modules(directory, model.config.hidden_size, 512, {"pooling": "mean", "normalize": True}, generator)


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=None if path.name == "expected.json" else 1) + "\n")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--shape"]:
        write_shape(arguments[1], Path(arguments[2]))
    else:
        for case in arguments or CASES:
            write_case(case)
