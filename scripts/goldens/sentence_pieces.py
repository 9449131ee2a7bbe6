"""Writes tests/goldens/sentence_pieces.json: two small SentencePiece vocabularies, and what sentencepiece makes of texts.

    python scripts/goldens/sentence_pieces.py

The vocabularies are of byte pairs with bytes for unknown characters, as those of Llama 2 and Mistral are, with and
without a space before each text. They are trained on files of this repository, so another run gives others.
"""

import io
import json
import random
from pathlib import Path

import sentencepiece

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "tests" / "goldens" / "sentence_pieces.json"
TRAINED_ON = ["docs/clients.md", "ARCHITECTURE.md", "scripts/goldens/float8.py", "crates/sched/src/scheduler.rs"]
VOCABULARY = 900
TEXTS = [
    "",
    " ",
    "Hello",
    " Hello  world   and\tmore\n\nlines ",
    "def add(a, b):\n    return a + b\n",
    "The scheduler hands out a budget of tokens.",
    "naïve café, 東京 🦀 and \u2581 itself",
    "aaaaaaaaaaaaaaaa bbbbbbb ababababab 1234567890",
    "<s> is a mark, and so is </s>",
]
MARKS = ["<s>", "</s>", "<unk>"]


def vocabulary(adds_space: bool) -> dict:
    model = io.BytesIO()
    lines = [line for name in TRAINED_ON for line in (ROOT / name).read_text().splitlines() if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        split_digits=True,
        character_coverage=0.999,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        add_dummy_prefix=adds_space,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(processor.get_piece_size())
    kinds = {
        "normal": [id for id in ids if not (processor.is_control(id) or processor.is_byte(id) or processor.is_unknown(id))],
        "control": [id for id in ids if processor.is_control(id)],
    }
    drawn = random.Random(1)
    letters = "abcdefgh  \n.,(){}=_éß中0123"
    texts = TEXTS + ["".join(drawn.choices(letters, k=drawn.randint(1, 60))) for _ in range(200)]
    texts += [" ".join(drawn.sample(line.split(), k=len(line.split()))) for line in drawn.sample(lines, 100)]
    # Marks are tokens to Backstop, and text to sentencepiece.
    texts = [text for text in texts if not any(mark in text for mark in MARKS)]
    return {
        "adds_space": adds_space,
        "tokens": [processor.id_to_piece(id) for id in ids],
        "scores": [processor.get_score(id) for id in ids],
        "unknown": processor.unk_id(),
        **kinds,
        "texts": [[text, processor.encode(text)] for text in texts],
    }


if __name__ == "__main__":
    goldens = [vocabulary(adds_space) for adds_space in (True, False)]
    OUTPUT.write_text(json.dumps(goldens, ensure_ascii=False, separators=(",", ":")) + "\n")
