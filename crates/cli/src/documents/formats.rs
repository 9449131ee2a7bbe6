//! The page of formats: of numbers, of chats, and of prompts that fill in the middle.

use backstop_kernels::{BlockFormat, FormatFacts};
use backstop_text::format::FORMATS;
use backstop_text::{ChatFormat, FIM_FAMILIES, FimOrder, ToolCalls};

use super::markdown::{Table, code};

pub(super) fn write() -> String {
    format!("{}{}{}", numbers(), chats(), middles())
}

fn numbers() -> String {
    let titles = [
        "format",
        "stored in",
        "numbers in a block",
        "bytes of a block",
        "bits for a number",
    ];
    let mut table = Table::new(&titles);
    for format in BlockFormat::ALL {
        let facts = format.facts();
        let bits = (facts.bytes * 8) as f64 / facts.numbers as f64;
        table.row(&[
            facts.name.to_owned(),
            stored_in(facts),
            facts.numbers.to_string(),
            facts.bytes.to_string(),
            bits.to_string(),
        ]);
    }
    format!(
        "## Number formats\n\nBeside F32, F16 and BF16, weights stay in memory in one of these. Of \
         [quantised safetensors](checkpoints.md#safetensors) codes and scales are interleaved in \
         blocks, as large as the checkpoint's groups or tiles allow.\n\n{}",
        table.finish()
    )
}

fn stored_in(facts: &FormatFacts) -> String {
    let gguf = facts.gguf.map(|number| format!("GGUF, type {number}"));
    let separate = facts
        .separate
        .map(|parts| format!("safetensors, scales {:?}", parts.scale));
    let places: Vec<String> = gguf.into_iter().chain(separate).collect();
    places.join("; ")
}

fn chats() -> String {
    let mut table = Table::new(&[
        "`--chat-format`",
        "models",
        "reasoning",
        "tool calls",
        "forced calls",
    ]);
    for format in FORMATS {
        let forced = match format.calls {
            ToolCalls::None => "no",
            ToolCalls::One => "yes, one call",
            ToolCalls::Several => "yes",
        };
        let reasons = if format.reasons() { "yes" } else { "no" };
        table.row(&[
            &code(format.id),
            format.models,
            reasons,
            form_of_calls(format),
            forced,
        ]);
    }
    format!(
        "## Chat formats\n\nHow answers mark [reasoning and tool calls](structured.md). Which one a model \
         has, [checkpoints.md](checkpoints.md#chat-format) says.\n\n{}",
        table.finish()
    )
}

fn form_of_calls(format: &ChatFormat) -> &'static str {
    match (format.calls_tools(), format.tags_values()) {
        (false, _) => "none",
        (true, true) => "values between tags",
        (true, false) => "JSON",
    }
}

fn middles() -> String {
    let mut table = Table::new(&["family", "models", "order", "tokens"]);
    for family in FIM_FAMILIES {
        let (first, second) = match family.order {
            FimOrder::PrefixFirst => (family.prefix, family.suffix),
            FimOrder::SuffixFirst => (family.suffix, family.prefix),
        };
        let order = match family.order {
            FimOrder::PrefixFirst => "prefix, suffix",
            FimOrder::SuffixFirst => "suffix, prefix",
        };
        let tokens = [Some(first), Some(second), family.middle]
            .into_iter()
            .flatten()
            .map(code);
        let tokens: Vec<String> = tokens.collect();
        table.row(&[&code(family.id), family.models, order, &tokens.join(" ")]);
    }
    format!(
        "## Filling in the middle\n\nThe first family whose tokens a vocabulary has is taken for the \
         model's, unless a manifest [names one](completions.md#filling-in-the-middle).\n\n{}",
        table.finish()
    )
}
