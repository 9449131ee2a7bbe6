//! A prompt's text, and where in it the text of a request stands that only looks like control tokens.

use crate::ControlTexts;

/// A text to encode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptText {
    text: String,
    /// Ascending positions in `text`, each behind a character. A token that reaches from before
    /// such a position to behind it would be made of what a request says, so none is a control token.
    content_points: Vec<usize>,
}

impl PromptText {
    /// A text in which the tokens' own texts stand for tokens, whoever wrote them.
    pub fn raw(text: String) -> Self {
        Self {
            text,
            content_points: Vec::new(),
        }
    }

    /// A text in which no token reaches across these positions, ascending and each behind a character.
    pub(crate) fn with_content_points(text: String, content_points: Vec<usize>) -> Self {
        Self {
            text,
            content_points,
        }
    }

    /// The same text behind another one.
    pub(crate) fn behind(&self, lead: &str) -> Self {
        let points = self.content_points.iter();
        Self {
            text: format!("{lead}{}", self.text),
            content_points: points.map(|point| point + lead.len()).collect(),
        }
    }

    /// Takes all marks out of a rendered text. Where one stood, the text is the request's.
    pub(crate) fn without_marks(marked: &str, mark: &str) -> Self {
        let mut prompt = Self::raw(String::with_capacity(marked.len()));
        let mut parts = marked.split(mark);
        prompt.text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            prompt.content_points.push(prompt.text.len());
            prompt.text.push_str(part);
        }
        prompt.content_points.dedup();
        prompt
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text alone.
    pub fn into_string(self) -> String {
        self.text
    }

    /// Where the text is the request's although it looks like a control token.
    pub fn content_points(&self) -> &[usize] {
        &self.content_points
    }

    /// Adds text that stands for what it says, tokens included.
    pub(crate) fn push_template_text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds text of an assistant's, in which tags of reasoning alone mean what they say.
    pub(crate) fn push_answer_text(&mut self, text: &str, controls: &ControlTexts) {
        let start = self.text.len();
        let places = controls.places(text, true);
        self.content_points
            .extend(places.into_iter().map(|place| start + place));
        self.text.push_str(text);
    }

    /// Shortens the text.
    pub fn truncate(&mut self, length: usize) {
        self.text.truncate(length);
        self.content_points.retain(|&point| point < length);
    }
}
