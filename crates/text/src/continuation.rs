//! Prompts that end within their final message, which the answer goes on with.
//!
//! Chat templates write whole messages. A mark behind the end of the final one's text, or of its
//! reasoning if it has no text yet, comes out where the model has to go on: a template may trim or
//! rearrange the text, but not what it does not know. A template that leaves reasoning out cannot be
//! told so; it writes the beginning of a turn, and the reasoning is put behind that.

use serde_json::Value;

use crate::constraint::Opening;
use crate::format::ParserOptions;
use crate::{ChatFormat, ControlTexts, PromptText};

/// Fields in which templates look for reasoning.
const REASONING: [&str; 3] = ["reasoning", "reasoning_content", "thinking"];

/// A final message that is to be continued.
#[derive(Clone, Debug)]
pub struct Continuation {
    mark: String,
    /// The reasoning that goes on; `None` if the text does.
    reasoning: Option<String>,
    /// Where in its turn the answer begins, if it goes on with text.
    text_opening: Option<Opening>,
}

/// Why a rendered prompt has no one place to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The template does not write the message.
    Absent,
    /// It writes it more than once.
    Repeated,
}

impl Continuation {
    /// Marks the end of the final message. `mark` stands in no other text.
    pub fn begin(messages: &mut [Value], format: &ChatFormat, mark: String) -> Self {
        let Some(message) = messages.last_mut() else {
            return Self {
                mark,
                reasoning: None,
                text_opening: None,
            };
        };
        take_reasoning_out(message, format);
        let text = message["content"].as_str().unwrap_or_default();
        let reasoning = REASONING.iter().find_map(|name| message[*name].as_str());
        let reasoning = reasoning.filter(|thought| text.is_empty() && !thought.is_empty());
        let reasoning = reasoning.map(str::to_owned);
        // One that is closed in the text itself is before it.
        let text_opening = (!text.is_empty() || format.marks_text()).then_some(Opening::Text);
        match &reasoning {
            Some(thought) => {
                for name in REASONING {
                    if message.get(name).is_some() {
                        message[name] = Value::from(format!("{thought}{mark}"));
                    }
                }
            }
            None => message["content"] = Value::from(format!("{text}{mark}")),
        }
        Self {
            mark,
            reasoning,
            text_opening,
        }
    }

    /// Whether it is reasoning that goes on.
    pub fn is_within_reasoning(&self) -> bool {
        self.reasoning.is_some()
    }

    /// The prompt up to the mark, and where in its turn the answer begins.
    pub fn cut(
        &self,
        mut rendered: PromptText,
        format: &ChatFormat,
    ) -> Result<(PromptText, Opening), NoPlace> {
        let end = rendered.as_str().rfind(&self.mark).ok_or(NoPlace::Absent)?;
        rendered.truncate(end);
        if rendered.as_str().contains(&self.mark) {
            return Err(NoPlace::Repeated);
        }
        let opening = match (&self.reasoning, self.text_opening) {
            (Some(_), _) => Opening::Reasoning,
            (None, Some(opening)) => opening,
            (None, None) => format.opening(rendered.as_str()),
        };
        Ok((rendered, opening))
    }

    /// Puts the reasoning behind a prompt that ends with the beginning of a turn; `None` if the
    /// format has none.
    pub fn append_reasoning(
        &self,
        mut prompt: PromptText,
        format: &ChatFormat,
        controls: &ControlTexts,
    ) -> Option<PromptText> {
        let (opener, reasoning) = (format.reasoning_opener()?, self.reasoning.as_deref()?);
        // On a line of its own where the end of reasoning has one.
        let has_lines = format
            .reasoning_end()
            .is_some_and(|end| end.starts_with('\n'));
        let opener_line = format!("{opener}{}", if has_lines { "\n" } else { "" });
        let text = prompt.as_str();
        match format.opening(text) {
            Opening::Reasoning => {}
            Opening::ReasoningClosed => {
                let closer = format.reasoning_closer().unwrap_or_default();
                let closed = text
                    .trim_end()
                    .strip_suffix(closer)
                    .unwrap_or(text)
                    .trim_end();
                let before = closed.strip_suffix(opener).unwrap_or(closed);
                let length = before.len();
                prompt.truncate(length);
                prompt.push_template_text(&opener_line);
            }
            Opening::Turn | Opening::Text => prompt.push_template_text(&opener_line),
        }
        prompt.push_answer_text(reasoning, controls);
        Some(prompt)
    }
}

/// Text that has reasoning within it, and does not end it, is reasoning.
fn take_reasoning_out(message: &mut Value, format: &ChatFormat) {
    let has_own = REASONING.iter().any(|name| message.get(*name).is_some());
    let (Some(text), Some(opener)) = (message["content"].as_str(), format.reasoning_opener())
    else {
        return;
    };
    let Some(thought) = text.trim_start().strip_prefix(opener).filter(|_| !has_own) else {
        return;
    };
    let mut parser = format.parser(ParserOptions::default());
    parser.push(text);
    if !parser.in_reasoning() {
        return;
    }
    // Templates put line breaks there themselves.
    let thought = Value::from(thought.trim_start_matches('\n'));
    message["content"] = Value::from("");
    for name in &REASONING[..2] {
        message[*name] = thought.clone();
    }
}
