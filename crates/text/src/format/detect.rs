//! Tells a model's chat format by its chat template: what the template writes into the prompt is
//! what the model was trained to write.

/// The format whose tags this template writes, by its id; `None` if they are of no known format.
///
/// Told by the template and not by the architecture: many families share an architecture, and a
/// fine-tuned model often has another family's format.
pub fn detect(template: &str) -> Option<&'static str> {
    let has = |tag: &str| template.contains(tag);
    let found = RULES
        .iter()
        .find(|rule| rule.has.iter().all(|tag| has(tag)) && !rule.lacks.iter().any(|tag| has(tag)));
    found.map(|rule| rule.format)
}

/// Tags that tell a format.
struct Rule {
    format: &'static str,
    /// All of these are there,
    has: &'static [&'static str],
    /// and none of these.
    lacks: &'static [&'static str],
}

const fn rule(
    format: &'static str,
    has: &'static [&'static str],
    lacks: &'static [&'static str],
) -> Rule {
    Rule { format, has, lacks }
}

/// The first that fits counts: what is common to several families comes late.
const RULES: &[Rule] = &[
    rule(
        "cohere_cmd4",
        &["<|CHATBOT_TOKEN|>", "<|START_ACTION|>"],
        &[],
    ),
    rule("harmony", &["<|channel|>", "<|message|>", "<|start|>"], &[]),
    rule("deepseek_v3", &["<｜tool▁calls▁begin｜>", "```json"], &[]),
    rule("deepseek_v31", &["<｜tool▁calls▁begin｜>"], &[]),
    rule("kimi_k2", &["<|tool_calls_section_begin|>"], &[]),
    rule("glm45", &["<tool_call>", "</arg_key>\\n<arg_value>"], &[]),
    rule("glm45", &["<tool_call>", "</arg_key>\n<arg_value>"], &[]),
    rule("glm47", &["<tool_call>", "<arg_key>"], &[]),
    rule(
        "qwen3_coder",
        &["<tool_call>", "<function=", "<parameter="],
        &[],
    ),
    rule("mistral", &["[TOOL_CALLS]"], &[]),
    rule(
        "llama3_json",
        &["<|start_header_id|>", "\"parameters\":", "tool_calls"],
        &[],
    ),
    rule(
        "hermes",
        &["<|im_start|>", "<tool_call>", "\"arguments\""],
        &[],
    ),
    rule(
        "hermes",
        &["<|im_start|>", "<tool_call>", "\\\"arguments\\\""],
        &[],
    ),
    rule("chatml", &["<|im_start|>"], &["tool_call"]),
    rule("plain", &["[INST]"], &["tool_call"]),
    rule("plain", &["<|start_header_id|>"], &["tool_call"]),
];

#[cfg(test)]
mod tests {
    use super::super::chat_format;
    use super::{RULES, detect};

    #[test]
    fn every_rule_leads_to_a_known_format() {
        for rule in RULES {
            assert!(chat_format(rule.format).is_some(), "{}", rule.format);
        }
    }

    #[test]
    fn a_template_tells_the_format_by_its_tags() {
        let cases = [
            ("{{ '<|im_start|>' + role }}", Some("chatml")),
            (
                r#"<|im_start|> <tool_call>\n{\"name\": x, \"arguments\": y}"#,
                Some("hermes"),
            ),
            (
                "<|im_start|><tool_call>\n<function=f>\n<parameter=a>",
                Some("qwen3_coder"),
            ),
            (
                "<|start|>assistant<|channel|>final<|message|>",
                Some("harmony"),
            ),
            (
                "<｜tool▁calls▁begin｜>function\n```json\n",
                Some("deepseek_v3"),
            ),
            ("<｜tool▁calls▁begin｜>", Some("deepseek_v31")),
            ("<|tool_calls_section_begin|>", Some("kimi_k2")),
            (
                "<tool_call>{name}\n<arg_key>{k}</arg_key>\n<arg_value>",
                Some("glm45"),
            ),
            (
                "<tool_call>{name}<arg_key>{k}</arg_key><arg_value>",
                Some("glm47"),
            ),
            ("[INST]{{ content }}[/INST]", Some("plain")),
            ("[INST] [AVAILABLE_TOOLS] [TOOL_CALLS] [", Some("mistral")),
            (
                r#"<|start_header_id|> {"name": n, "parameters": p} {% if 'tool_calls' in message %}"#,
                Some("llama3_json"),
            ),
            (
                "<|start_header_id|>{{ role }}<|end_header_id|>",
                Some("plain"),
            ),
            ("<|im_start|><|tool_call_start|>", None),
            ("{{ content }}", None),
            ("", None),
        ];
        for (template, expected) in cases {
            assert_eq!(detect(template), expected, "{template}");
        }
    }
}
