//! What an answer may be, in the layout in which chat templates of this format write earlier
//! answers: a model was trained on no other.

use super::super::layout::{ANY_TEXT, Layout};
use super::{
    END_ACTION, END_RESPONSE, END_TEXT, END_THINKING, START_ACTION, START_RESPONSE, START_TEXT,
    START_THINKING,
};
use crate::constraint::{AnswerShape, CallShape, CallableTool, Opening, TextShape, literal};

/// Calls are numbered over the whole conversation.
const CALL_NUMBER: &str = "CALL_NUMBER: /0|[1-9][0-9]{0,4}/\n";

pub(super) fn layout(shape: &AnswerShape, layout: &Layout<'_>) -> Option<String> {
    let mut rules = start(shape.opening, layout);
    let mut answers = Vec::new();
    if let Some(text) = &shape.text {
        answers.push("text");
        rules += &text_rules(text, shape.opening, layout);
    }
    if let Some(calls) = shape
        .calls
        .as_ref()
        .filter(|_| shape.opening != Opening::Text)
    {
        answers.push("action");
        rules += &action_rules(calls, layout);
    }
    if answers.is_empty() {
        return None;
    }
    rules += &format!("answer: {}\n", answers.join(" | "));
    rules += ANY_TEXT;
    Some(rules)
}

fn start(opening: Opening, layout: &Layout<'_>) -> String {
    let reasoning = || layout.any_text_until("reasoning", END_THINKING);
    match opening {
        Opening::Reasoning => format!("start: reasoning answer\n{}", reasoning()),
        Opening::ReasoningClosed | Opening::Text => "start: answer\n".to_owned(),
        Opening::Turn => format!(
            "start: answer | {} reasoning answer\n{}",
            layout.tag(START_THINKING),
            reasoning()
        ),
    }
}

fn text_rules(text: &TextShape, opening: Opening, layout: &Layout<'_>) -> String {
    // Command 3 has other names for these tags.
    let (start, end) = match !layout.has_token(START_TEXT) && layout.has_token(START_RESPONSE) {
        true => (START_RESPONSE, END_RESPONSE),
        false => (START_TEXT, END_TEXT),
    };
    let start = match opening {
        Opening::Text => String::new(),
        _ => layout.tag(start),
    };
    match text {
        TextShape::Any => {
            let rest = layout.any_text_until("text_rest", end);
            format!("text: {start} text_rest\n{rest}")
        }
        _ => format!("text: {start} @text {}\n", layout.tag(end)),
    }
}

fn action_rules(calls: &CallShape, layout: &Layout<'_>) -> String {
    let more = match calls.parallel {
        true => format!("({} call)*", literal(",\n    ")),
        false => String::new(),
    };
    let mut rules = format!(
        "action: {} {} call {more} {} {}\n",
        layout.tag(START_ACTION),
        literal("[\n    "),
        literal("\n]"),
        layout.tag(END_ACTION),
    );
    let tools: Vec<String> = calls.tools.iter().map(tool).collect();
    rules += &format!(
        "call: {} CALL_NUMBER {} tool {}\n",
        literal("{\"tool_call_id\": \""),
        literal("\", \"tool_name\": "),
        literal("}"),
    );
    rules += &format!("tool: {}\n{CALL_NUMBER}", tools.join("\n  | "));
    rules
}

fn tool(tool: &CallableTool) -> String {
    let opening = format!("{}, \"parameters\": ", literal(&tool.name));
    format!("{} @{}", literal(&opening), tool.grammar_name())
}
