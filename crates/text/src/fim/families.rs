//! What families of models were taught to fill in the middle with.
//!
//! From the papers and model cards of the families; the tokens' roles as llama.cpp's `llama-vocab.cpp`
//! has them. A new family is an entry here.

/// In what order a prompt has the text before the middle and the text behind it (Bavarian et al. 2022).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FimOrder {
    /// Prefix, suffix, middle.
    PrefixFirst,
    /// Suffix, prefix, middle.
    SuffixFirst,
}

/// The tokens of one family, by their texts.
#[derive(Debug)]
pub struct FimFamily {
    /// What manifests call it.
    pub id: &'static str,
    /// The models that were taught so, for the manual.
    pub models: &'static str,
    /// In what order its prompts are.
    pub order: FimOrder,
    /// Begins the prefix.
    pub prefix: &'static str,
    /// Begins the suffix.
    pub suffix: &'static str,
    /// Begins the middle; without one that goes on where the prefix ends.
    pub middle: Option<&'static str>,
    /// Begins the name of a repository.
    pub repository: Option<&'static str>,
    /// Begins the name of a file, behind which its text stands.
    pub file: Option<&'static str>,
    /// What else ends a middle, as far as the vocabulary has it.
    pub ends: &'static [&'static str],
}

use FimOrder::{PrefixFirst, SuffixFirst};

/// All families. The first whose tokens a vocabulary has is taken for the model's; one that has the
/// same tokens as an earlier one is there to be named by a manifest.
pub const FIM_FAMILIES: &[FimFamily] = &[
    FimFamily {
        id: "qwen",
        models: "Qwen2.5-Coder, Qwen3-Coder",
        order: PrefixFirst,
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: Some("<|fim_middle|>"),
        repository: Some("<|repo_name|>"),
        file: Some("<|file_sep|>"),
        ends: &["<|fim_pad|>", "<|endoftext|>", "<|im_end|>"],
    },
    FimFamily {
        id: "codegemma",
        models: "CodeGemma",
        order: PrefixFirst,
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: Some("<|fim_middle|>"),
        repository: None,
        file: Some("<|file_separator|>"),
        ends: &["<end_of_turn>", "<eos>"],
    },
    // Whose further tokens are not documented.
    FimFamily {
        id: "granite4",
        models: "Granite 4",
        order: PrefixFirst,
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: Some("<|fim_middle|>"),
        repository: None,
        file: None,
        ends: &[
            "<|fim_pad|>",
            "<|filename|>",
            "<|reponame|>",
            "<|end_of_text|>",
            "<|endoftext|>",
        ],
    },
    FimFamily {
        id: "starcoder2",
        models: "StarCoder2",
        order: PrefixFirst,
        prefix: "<fim_prefix>",
        suffix: "<fim_suffix>",
        middle: Some("<fim_middle>"),
        repository: Some("<repo_name>"),
        file: Some("<file_sep>"),
        ends: &["<fim_pad>", "<|endoftext|>"],
    },
    FimFamily {
        id: "starcoder",
        models: "StarCoder, Granite Code up to Granite 3",
        order: PrefixFirst,
        prefix: "<fim_prefix>",
        suffix: "<fim_suffix>",
        middle: Some("<fim_middle>"),
        repository: Some("<reponame>"),
        file: Some("<filename>"),
        ends: &[
            "<fim_pad>",
            "<gh_stars>",
            "<|endoftext|>",
            "<|end_of_text|>",
        ],
    },
    FimFamily {
        id: "stablecode",
        models: "StableCode",
        order: PrefixFirst,
        prefix: "<fim_prefix>",
        suffix: "<fim_suffix>",
        middle: Some("<fim_middle>"),
        repository: None,
        file: None,
        ends: &["<fim_pad>", "<|endoftext|>"],
    },
    // With StarCoder's tokens in another order: only its name tells.
    FimFamily {
        id: "mellum",
        models: "Mellum, which a manifest has to name",
        order: SuffixFirst,
        prefix: "<fim_prefix>",
        suffix: "<fim_suffix>",
        middle: Some("<fim_middle>"),
        repository: None,
        file: Some("<filename>"),
        ends: &["<fim_pad>", "<reponame>", "<|endoftext|>"],
    },
    FimFamily {
        id: "santacoder",
        models: "SantaCoder",
        order: PrefixFirst,
        prefix: "<fim-prefix>",
        suffix: "<fim-suffix>",
        middle: Some("<fim-middle>"),
        repository: None,
        file: None,
        ends: &["<fim-pad>", "<|endoftext|>"],
    },
    // As mistral-common encodes such requests: `[MIDDLE]` is never written.
    FimFamily {
        id: "codestral",
        models: "Codestral",
        order: SuffixFirst,
        prefix: "[PREFIX]",
        suffix: "[SUFFIX]",
        middle: None,
        repository: None,
        file: None,
        ends: &["[MIDDLE]", "</s>"],
    },
    FimFamily {
        id: "deepseek",
        models: "DeepSeek-Coder",
        order: PrefixFirst,
        prefix: "<｜fim▁begin｜>",
        suffix: "<｜fim▁hole｜>",
        middle: Some("<｜fim▁end｜>"),
        repository: None,
        file: None,
        ends: &["<|EOT|>", "<｜end▁of▁sentence｜>"],
    },
    FimFamily {
        id: "codellama",
        models: "CodeLlama",
        order: PrefixFirst,
        prefix: "▁<PRE>",
        suffix: "▁<SUF>",
        middle: Some("▁<MID>"),
        repository: None,
        file: None,
        ends: &["▁<EOT>", "</s>"],
    },
    FimFamily {
        id: "glm",
        models: "GLM",
        order: PrefixFirst,
        prefix: "<|code_prefix|>",
        suffix: "<|code_suffix|>",
        middle: Some("<|code_middle|>"),
        repository: None,
        file: None,
        ends: &["<|endoftext|>", "<|user|>", "<|observation|>"],
    },
    FimFamily {
        id: "seed-coder",
        models: "Seed-Coder",
        order: SuffixFirst,
        prefix: "<[fim-prefix]>",
        suffix: "<[fim-suffix]>",
        middle: Some("<[fim-middle]>"),
        repository: None,
        file: None,
        ends: &["<[end▁of▁sentence]>"],
    },
    FimFamily {
        id: "falcon-coder",
        models: "Falcon-Coder",
        order: PrefixFirst,
        prefix: "<|prefix|>",
        suffix: "<|suffix|>",
        middle: Some("<|middle|>"),
        repository: None,
        file: None,
        ends: &["<|end_of_text|>"],
    },
];

impl FimFamily {
    /// The texts of all its tokens but those that end answers of any kind.
    pub(super) fn texts(&self) -> impl Iterator<Item = &'static str> {
        let optional = [self.middle, self.repository, self.file];
        let begins = [self.prefix, self.suffix].into_iter();
        begins.chain(optional.into_iter().flatten())
    }
}
