//! Renders prompts in which what requests say is kept apart from what the template says.

use serde_json::Value;

use super::{ChatTemplate, ChatTemplateInput, TemplateError, to_jinja_all};
use crate::{ControlTexts, PromptText};

impl ChatTemplate {
    /// Renders the prompt so that what looks like control tokens in the input is told apart from
    /// the template's own.
    ///
    /// `mark` stands in no other text: digits that nobody could foresee, which survive whatever
    /// templates do to letters. Each mark is inside of at least one token, so that more than
    /// `marks_max` make a prompt that is too long.
    pub fn render_apart(
        &self,
        input: &ChatTemplateInput,
        controls: &ControlTexts,
        mark: &str,
        marks_max: usize,
    ) -> Result<PromptText, TemplateError> {
        // Only now are the arguments of calls no JSON text any more, in which all can be escaped.
        let messages = self.normalized(input)?;
        let rendered = self.render_messages(input, to_jinja_all(&messages))?;
        let mut count = 0;
        for message in &messages {
            count += controls.count_in_message(message, marks_max.saturating_sub(count));
        }
        for value in input.others() {
            count += controls.count_in_value(value, marks_max.saturating_sub(count));
        }
        match count {
            0 => return Ok(PromptText::raw(rendered)),
            _ if count > marks_max => return Err(TemplateError::ControlTexts(count)),
            _ => {}
        }
        drop(rendered);
        // A template that refuses the text as it is was asked first.
        let marked = input.marked(messages, controls, mark);
        let rendered = self.render_messages(&marked, to_jinja_all(&marked.messages))?;
        Ok(PromptText::without_marks(&rendered, mark))
    }
}

impl ChatTemplateInput {
    /// What comes from a request beside messages.
    fn others(&self) -> impl Iterator<Item = &Value> {
        let lists = [&self.tools, &self.documents];
        let items = lists.into_iter().flatten().flatten();
        items.chain(self.extra.values())
    }

    /// The same with these messages, in which everything that comes from a request is marked.
    fn marked(&self, mut messages: Vec<Value>, controls: &ControlTexts, mark: &str) -> Self {
        for message in &mut messages {
            controls.mark_message(message, mark);
        }
        let mut marked = Self {
            messages,
            tools: self.tools.clone(),
            documents: self.documents.clone(),
            bos_token: self.bos_token.clone(),
            eos_token: self.eos_token.clone(),
            extra: self.extra.clone(),
            ..*self
        };
        let lists = [&mut marked.tools, &mut marked.documents];
        let items = lists.into_iter().flatten().flatten();
        for value in items.chain(marked.extra.values_mut()) {
            controls.mark_value(value, mark);
        }
        marked
    }
}
