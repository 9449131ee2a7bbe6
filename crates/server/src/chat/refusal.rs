//! What a client and the log learn of a conversation that the chat template did not take.
//!
//! A template that refuses one says why in its author's words, which may have the request's within
//! them. Errors never repeat a request, so only words pass that stand in the template itself.

use backstop_protocol::ApiError;
use backstop_text::{ChatTemplate, TemplateError};

use crate::model::ServedModel;
use crate::prepare;

/// Characters of a template's message that are passed on.
const MESSAGE_CHARACTERS_MAX: usize = 300;
/// Stands where the request's words were.
const LEFT_OUT: &str = "…";

/// The error of a request whose conversation came in field `param`.
pub(super) fn of_template(
    model: &ServedModel,
    template: &ChatTemplate,
    error: TemplateError,
    param: &'static str,
) -> ApiError {
    const REFUSED: &str = "is not a conversation that the chat template accepts";
    match error {
        TemplateError::ControlTexts(tokens) => prepare::too_long(model, tokens, None, param),
        TemplateError::UnsupportedContent(_) => ApiError::invalid_field(param, REFUSED),
        TemplateError::Raised(message) => {
            let message = own_words(&message, template.source());
            tracing::warn!(message, "the chat template refuses a conversation");
            match message.is_empty() {
                true => ApiError::invalid_field(param, REFUSED),
                false => ApiError::invalid_field(param, &format!("{REFUSED}: {message}")),
            }
        }
        TemplateError::Limit => ApiError::invalid_field(
            param,
            "takes the chat template more time or memory than it may",
        ),
        TemplateError::Failed(reason)
        | TemplateError::Syntax(reason)
        | TemplateError::Unsupported(reason) => {
            tracing::warn!(%reason, "the chat template failed on a request");
            ApiError::invalid_field(param, "cannot be rendered by the chat template")
        }
    }
}

/// The longest runs of words of a message that stand in the template's source, with a mark for
/// what stands between them. Control characters are spaces.
fn own_words(message: &str, source: &str) -> String {
    let message: String = message.chars().take(MESSAGE_CHARACTERS_MAX).collect();
    let words: Vec<&str> = message
        .split(|character: char| character.is_whitespace() || character.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let (mut runs, mut start) = (Vec::new(), 0);
    while start < words.len() {
        let run = |end: usize| words[start..end].join(" ");
        let known = (start + 1..=words.len()).take_while(|end| source.contains(&run(*end)));
        match known.last() {
            Some(end) => {
                runs.push(run(end));
                start = end;
            }
            None => {
                if runs.last().is_none_or(|last| last != LEFT_OUT) {
                    runs.push(LEFT_OUT.to_owned());
                }
                start += 1;
            }
        }
    }
    match runs.iter().all(|run| run == LEFT_OUT) {
        true => String::new(),
        false => runs.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::own_words;

    #[test]
    fn a_templates_own_words_pass_and_no_others() {
        let source = "{{ raise_exception('Roles must alternate, not ' + role + '; see the docs') }}\
                      {{ raise_exception('Only user and assistant roles are supported!') }}";
        let cases = [
            (
                "Only user and assistant roles are supported!",
                "Only user and assistant roles are supported!",
            ),
            (
                "Roles must alternate, not my secret; see the docs",
                "Roles must alternate, not … see the docs",
            ),
            (
                "Roles must alternate,\n\tnot\u{1b}[31m user",
                "Roles must alternate, not … user",
            ),
            ("secret words", ""),
            ("", ""),
        ];
        for (message, expected) in cases {
            assert_eq!(own_words(message, source), expected, "{message:?}");
        }
        let long = "Roles must ".repeat(1000);
        assert!(own_words(&long, source).chars().count() <= 320);
    }
}
