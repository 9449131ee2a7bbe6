"""Trains the tokenizer: byte-level BPE, 4096 entries, special tokens as in the Cohere command-4 family."""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from conversations import MODEL_FOLDER, conversations
from source_files import source_files

VOCABULARY_SIZE = 4096
FIRST_TOKENS = ["<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<EOP_TOKEN>"]
TURN_TOKENS = ["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]
# Not special: they stay visible when special tokens are skipped, because the answer's parser needs them.
BLOCK_TOKENS = [
    "<|START_THINKING|>", "<|END_THINKING|>", "<|START_TEXT|>", "<|END_TEXT|>",
    "<|START_ACTION|>", "<|END_ACTION|>", "<|START_TOOL_RESULT|>", "<|END_TOOL_RESULT|>",
]


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    files = source_files()["train"]
    texts = [text for _, text in files] + strip_blocks(conversations(files, 4000, seed=1))
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(TURN_TOKENS) - len(BLOCK_TOKENS),
        special_tokens=FIRST_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(TURN_TOKENS)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in BLOCK_TOKENS])
    bos = tokenizer.token_to_id("<BOS_TOKEN>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<BOS_TOKEN> $A", pair="<BOS_TOKEN> $A <BOS_TOKEN> $B:1", special_tokens=[("<BOS_TOKEN>", bos)]
    )
    assert tokenizer.get_vocab_size() == VOCABULARY_SIZE
    return tokenizer


def strip_blocks(texts: list[str]) -> list[str]:
    """Removes the control tokens, so that no merge is learnt from their letters."""
    for token in FIRST_TOKENS + TURN_TOKENS + BLOCK_TOKENS:
        texts = [text.replace(token, "\n") for text in texts]
    return texts


def save(tokenizer: Tokenizer) -> None:
    tokenizer.save(str(MODEL_FOLDER / "tokenizer.json"), pretty=False)
    names = {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>", "pad_token": "<PAD>", "unk_token": "<UNK>",
             "cls_token": "<CLS>", "sep_token": "<SEP>", "mask_token": "<MASK_TOKEN>"}
    decoder = {
        str(index): {"content": token.content, "lstrip": token.lstrip, "normalized": token.normalized,
                     "rstrip": token.rstrip, "single_word": token.single_word, "special": token.special}
        for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    config = {"add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder, **names,
              "clean_up_tokenization_spaces": False, "model_max_length": 4096, "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json("tokenizer_config.json", config)
    write_json("special_tokens_map.json", names)


def write_json(name: str, value: dict) -> None:
    (MODEL_FOLDER / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    save(train())
