//! Finds what looks like control tokens in the contents of a request, so that it can be kept apart
//! from the chat template's own.
//!
//! A mark is put behind the first character of each such text before the template runs, and taken
//! out afterwards; a token that would reach across where it stood is not recognised. So it does not
//! matter what the template does with the text in between: trim it, quote it as JSON, move it.
//!
//! What counts as a control token, and where:
//!
//! - Special tokens of the vocabulary, the tags of the chat format, and other added tokens that the
//!   template itself writes (such as `<tool_response>`), in every string, name and key of messages,
//!   tools, documents and variables. A template that looks for its own tags in what a user or a tool
//!   says, as Qwen's does, doesn't find them: whoever has a tool's result gives it the role `tool`.
//! - Tokens by which models fill in the middle, likewise, special or not.
//! - In an assistant's text and reasoning, tags of reasoning and tags that are ordinary tokens stay:
//!   the model wrote them, clients send them back as they came, and templates cut histories there.
//!   Text of a message that says `"quotes": true` is not the model's alone: it repeats what others
//!   wrote, such as a page that a provider's tool found.
//! - Other added tokens (emoji, runs of white space, HTML) are text that happens to be one token.
//! - The beginning of such a text at the end of a string, so that two strings that a template writes
//!   side by side don't make up a token.

use std::collections::BTreeSet;

use aho_corasick::AhoCorasick;
use serde_json::Value;

use crate::{ChatFormat, PromptText, Tokenizer, TokenizerError, fim};

/// Fields of an assistant's message that hold what the model wrote, first that which may hold what
/// others wrote as well.
const OWN_FIELDS: [&str; 4] = ["content", "reasoning", "reasoning_content", "thinking"];

/// The texts of control tokens of a model.
#[derive(Debug)]
pub struct ControlTexts {
    /// Sorted.
    texts: Vec<String>,
    searcher: AhoCorasick,
    longest_bytes: usize,
    /// Bytes that any of them begins with.
    first_bytes: BTreeSet<u8>,
    /// Those that stay what they are in an assistant's own text, by their place in `texts`.
    stay: Vec<bool>,
}

impl ControlTexts {
    /// Collects the texts for a model with these chat templates.
    pub fn new(
        tokenizer: &Tokenizer,
        format: &ChatFormat,
        templates: &[&str],
    ) -> Result<Self, TokenizerError> {
        let tags: Vec<String> = format
            .tag_tokens(tokenizer)
            .into_iter()
            .filter_map(|id| tokenizer.id_to_token(id))
            .collect();
        let is_written = |text: &str| {
            templates.iter().any(|source| source.contains(text))
                && text.contains(char::is_alphanumeric)
        };
        let mut texts: BTreeSet<String> = tokenizer
            .added_tokens()
            .filter(|(text, special)| *special || is_written(text))
            .map(|(text, _)| text)
            .collect();
        texts.extend(tags.iter().cloned());
        texts.extend(fim::control_texts(tokenizer));
        // What is a single character cannot be told apart by a position inside it.
        let texts: Vec<String> = texts
            .into_iter()
            .filter(|text| text.chars().nth(1).is_some())
            .collect();
        let stays = |text: &String| {
            let is_special = |text: &str| {
                let id = tokenizer.token_to_id(text);
                id.is_some_and(|id| tokenizer.is_special(id))
            };
            format.is_reasoning_tag(text) || (tags.contains(text) && !is_special(text))
        };
        let error = |error: aho_corasick::BuildError| TokenizerError::Load(error.to_string());
        Ok(Self {
            searcher: AhoCorasick::new(&texts).map_err(error)?,
            first_bytes: texts
                .iter()
                .filter_map(|text| text.bytes().next())
                .collect(),
            longest_bytes: texts.iter().map(String::len).max().unwrap_or(0),
            stay: texts.iter().map(stays).collect(),
            texts,
        })
    }

    /// A text for a prompt that no chat template writes, in which nothing is a control token.
    pub fn as_text(&self, text: String) -> PromptText {
        let places = self.places(&text, false);
        PromptText::with_content_points(text, places)
    }

    /// How many marks a message needs; counts up to `most` or a little further.
    pub(crate) fn count_in_message(&self, message: &Value, most: usize) -> usize {
        match message.as_object().filter(|_| is_answer(message)) {
            Some(answer) => answer.iter().fold(0, |count, (field, value)| {
                let own = own_fields(message).contains(&field.as_str());
                count + self.count_in(value, own, most.saturating_sub(count))
            }),
            None => self.count_in_value(message, most),
        }
    }

    /// The same for any value.
    pub(crate) fn count_in_value(&self, value: &Value, most: usize) -> usize {
        self.count_in(value, false, most)
    }

    fn count_in(&self, value: &Value, own: bool, most: usize) -> usize {
        let count_text = |text, own, most| self.occurrences(text, own).take(most + 1).count();
        match value {
            Value::String(text) => count_text(text, own, most),
            Value::Array(items) => items.iter().fold(0, |count, item| {
                count + self.count_in(item, own, most.saturating_sub(count))
            }),
            Value::Object(map) => map.iter().fold(0, |count, (key, value)| {
                let count = count + count_text(key, false, most.saturating_sub(count));
                count + self.count_in(value, own, most.saturating_sub(count))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
    }

    /// Marks a message.
    pub(crate) fn mark_message(&self, message: &mut Value, mark: &str) {
        let own = own_fields(message);
        let is_answer = is_answer(message);
        let marker = Marker {
            controls: self,
            mark,
        };
        match message.as_object_mut() {
            Some(answer) if is_answer => {
                for (field, value) in answer.iter_mut() {
                    marker.mark(value, own.contains(&field.as_str()));
                }
            }
            _ => marker.mark(message, false),
        }
    }

    /// Marks every string and key inside a value.
    pub(crate) fn mark_value(&self, value: &mut Value, mark: &str) {
        let marker = Marker {
            controls: self,
            mark,
        };
        marker.mark(value, false);
    }

    /// Positions behind the first characters of control texts, ascending. `own`: in a text that the
    /// model wrote.
    pub(crate) fn places(&self, text: &str, own: bool) -> Vec<usize> {
        let mut places: Vec<usize> = self.occurrences(text, own).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The same in no order, some of them more than once.
    fn occurrences<'a>(&'a self, text: &'a str, own: bool) -> impl Iterator<Item = usize> + 'a {
        let found = self.searcher.find_overlapping_iter(text);
        let found = found.filter(move |found| !(own && self.stay[found.pattern().as_usize()]));
        let found = found.map(|found| behind_first(text, found.start()));
        // Templates like to trim.
        let trimmed = self.begun_at_end(text.trim_end());
        found.chain(self.begun_at_end(text)).chain(trimmed)
    }

    /// Where control texts begin that would go on behind the end.
    fn begun_at_end<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let reach = text.len().saturating_sub(self.longest_bytes);
        let from = text.ceil_char_boundary(reach);
        let starts = text[from..].char_indices().map(move |(at, _)| from + at);
        let begins = |start: &usize| {
            let rest = &text[*start..];
            if !self.first_bytes.contains(&text.as_bytes()[*start]) {
                return false;
            }
            let next = self
                .texts
                .partition_point(|control| control.as_str() < rest);
            let next = self.texts.get(next);
            next.is_some_and(|control| control.starts_with(rest))
        };
        starts
            .filter(begins)
            .map(move |start| behind_first(text, start))
    }
}

/// The fields of an assistant's message that hold nothing but what the model wrote.
fn own_fields(message: &Value) -> &'static [&'static str] {
    match message.get("quotes").is_some_and(|quotes| *quotes == true) {
        true => &OWN_FIELDS[1..],
        false => &OWN_FIELDS,
    }
}

fn is_answer(message: &Value) -> bool {
    message.get("role").is_some_and(|role| role == "assistant")
}

fn behind_first(text: &str, start: usize) -> usize {
    let first = text[start..].chars().next();
    start + first.map_or(0, char::len_utf8)
}

/// Puts marks into the strings of values.
struct Marker<'a> {
    controls: &'a ControlTexts,
    mark: &'a str,
}

impl Marker<'_> {
    fn mark(&self, value: &mut Value, own: bool) {
        match value {
            Value::String(text) => {
                if let Some(marked) = self.marked(text, own) {
                    *text = marked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.mark(item, own)),
            Value::Object(map) => {
                for (key, mut value) in std::mem::take(map) {
                    self.mark(&mut value, own);
                    map.insert(self.marked(&key, false).unwrap_or(key), value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn marked(&self, text: &str, own: bool) -> Option<String> {
        let places = self.controls.places(text, own);
        if places.is_empty() {
            return None;
        }
        let mut marked = String::with_capacity(text.len() + places.len() * self.mark.len());
        let mut done = 0;
        for place in places {
            marked.push_str(&text[done..place]);
            marked.push_str(self.mark);
            done = place;
        }
        marked.push_str(&text[done..]);
        Some(marked)
    }
}
