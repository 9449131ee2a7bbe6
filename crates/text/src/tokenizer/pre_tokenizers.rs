//! How byte-level tokenizers cut text before they merge, by the names that GGUF files have for it.
//!
//! The names are llama.cpp's (`llama-vocab.cpp`). The expressions are those of the models' own
//! `tokenizer.json`, which llama.cpp quotes where its own engine needs others; and where those files
//! compose characters first, so is done here.

use serde_json::{Value, json};

/// How text is cut before merging, and what else goes with it.
pub(super) struct PreTokenizer {
    pub(super) names: &'static [&'static str],
    /// Applied one after the other; each cuts its matches out of what the earlier ones left.
    expressions: &'static [&'static str],
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub(super) ignores_merges: bool,
    /// Whether composed characters are used where there are such.
    pub(super) composes: bool,
    /// Whether a text begins with the token for that, if the file does not say.
    pub(super) adds_bos: bool,
}

/// What most have: words are merged, and nothing else is done.
const PLAIN: PreTokenizer = PreTokenizer {
    names: &[],
    expressions: &[],
    ignores_merges: false,
    composes: false,
    adds_bos: false,
};

/// One digit.
const DIGIT: &str = r"\p{N}";
/// Up to three digits, from the left.
const THREE_DIGITS: &str = r"\p{N}{1,3}";
/// Up to three digits, from the right.
const THREE_DIGITS_FROM_BEHIND: &str = r"\d{1,3}(?=(?:\d{3})*\b)";

const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN_3_5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Words end where small letters are followed by large ones.
pub(super) const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const YOUTU_WORDS: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const KIMI_K2: &str = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Letters of scripts with large and small ones.
const DEEPSEEK_WORDS: &str = concat!(
    r"\s?[",
    r"A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}",
    r"\x{295}-\x{2af}\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}",
    r"\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}",
    r"\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}",
    r"\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}",
    r"\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}",
    r"\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}",
    r"\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}",
    r"\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}",
    r"\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}",
    r"\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}",
    r"\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}",
    r"\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}",
    r"\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}",
    r"]+",
);

const DEEPSEEK_CJK: &str = r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+";

const DEEPSEEK_V3: &[&str] = &[
    THREE_DIGITS,
    r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];

/// Everything between spaces and marks.
const BLOOM: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{ff0c}\x{3001}\x{964}\x{6d4}\x{60c})]+";

const PRE_TOKENIZERS: &[PreTokenizer] = &[
    // Also what a file has that names none: those are older than the names.
    PreTokenizer {
        names: &["default", ""],
        expressions: &[
            r"[\p{P}\$\+<=>\^~\|]+",
            GPT_2,
            r"\p{N}+",
            r"[0-9][0-9][0-9]",
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "jais",
            "trillion",
            "granite-docling",
        ],
        expressions: &[GPT_2],
        ..PLAIN
    },
    // Vocabularies after that of GPT-NeoX.
    PreTokenizer {
        names: &["mpt", "olmo"],
        expressions: &[GPT_2],
        composes: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        expressions: &[DIGIT, GPT_2],
        ..PLAIN
    },
    PreTokenizer {
        names: &["command-r"],
        expressions: &[DIGIT, GPT_2],
        composes: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "midm-2.0",
            "lfm2",
        ],
        expressions: &[LLAMA_3],
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    // Vocabularies of the same kind that have no token to begin a text with, SmolLM3's among them.
    PreTokenizer {
        names: &["smaug-bpe", "glm4", "glm5"],
        expressions: &[LLAMA_3],
        ignores_merges: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["dbrx", "chatglm-bpe"],
        expressions: &[LLAMA_3],
        ..PLAIN
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        expressions: &[QWEN_2],
        composes: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &[
            "stablelm2",
            "hunyuan",
            "megrez",
            "kormo",
            "grok-2",
            "solar-open",
        ],
        expressions: &[QWEN_2],
        ..PLAIN
    },
    PreTokenizer {
        names: &["qwen35"],
        expressions: &[QWEN_3_5],
        composes: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        expressions: &[
            r"[\r\n]",
            DEEPSEEK_WORDS,
            r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+",
            r"\s+$",
            DEEPSEEK_CJK,
            DIGIT,
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        expressions: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, DIGIT],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        expressions: DEEPSEEK_V3,
        ..PLAIN
    },
    PreTokenizer {
        names: &["youtu"],
        expressions: &[
            r"[\x{ac00}-\x{d7a3}\x{3131}-\x{318e}]+|[\x{ff01}\x{2026}\x{201c}\x{201d}\x{2018}\x{2019}\x{2014}\x{ff1a}\x{ff1b}\x{ff0c}\x{3001}-\x{303f}\x{fe30}-\x{fe4f}]+|[\x{3105}-\x{312f}]+|[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+",
            YOUTU_WORDS,
        ],
        ignores_merges: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["falcon"],
        expressions: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT_2, r"[0-9][0-9][0-9]"],
        ..PLAIN
    },
    PreTokenizer {
        names: &["bloom", "poro-chat", "gpt3-finnish"],
        expressions: &[BLOOM],
        ..PLAIN
    },
    PreTokenizer {
        names: &["viking"],
        expressions: &[BLOOM, DIGIT],
        ..PLAIN
    },
    PreTokenizer {
        names: &["tekken"],
        expressions: &[TEKKEN],
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4"],
        expressions: &[GPT_4O],
        ignores_merges: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["kanana2", "talkie", "minimax-m2"],
        expressions: &[GPT_4O],
        ..PLAIN
    },
    // Cohere's compose, as those of command-r do.
    PreTokenizer {
        names: &["tiny_aya", "cohere2moe"],
        expressions: &[THREE_DIGITS_FROM_BEHIND, GPT_4O],
        composes: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["chameleon"],
        expressions: &[
            r"<sentinel:[0-9]+>",
            r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT_2,
        ],
        adds_bos: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["kimi-k2"],
        expressions: &[KIMI_K2],
        ..PLAIN
    },
    PreTokenizer {
        names: &["superbpe"],
        expressions: &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
        ..PLAIN
    },
    PreTokenizer {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        expressions: &[
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["seed-coder"],
        expressions: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["exaone-moe"],
        expressions: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["minicpm5"],
        expressions: &[
            THREE_DIGITS,
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignores_merges: true,
        ..PLAIN
    },
];

impl PreTokenizer {
    /// The one of this name. The error says which are known, and what to do.
    pub(super) fn named(name: &str) -> Result<&'static Self, String> {
        let mut all = PRE_TOKENIZERS.iter();
        all.find(|rule| rule.names.contains(&name)).ok_or_else(|| {
            let names = PRE_TOKENIZERS.iter().flat_map(|rule| rule.names);
            let known: Vec<&str> = names.copied().filter(|name| !name.is_empty()).collect();
            let shown: String = name.chars().take(64).collect();
            format!(
                "the pre-tokenizer {shown:?} is not supported; use the model's checkpoint with a \
                 tokenizer.json; supported in GGUF files are: {}",
                known.join(", ")
            )
        })
    }

    /// The `pre_tokenizer` of `tokenizer.json`.
    pub(super) fn to_json(&self) -> Value {
        let split = |regex: &&str| {
            json!({
                "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false,
            })
        };
        let mut steps: Vec<Value> = self.expressions.iter().map(split).collect();
        steps.push(json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
        }));
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

#[cfg(test)]
mod tests;
