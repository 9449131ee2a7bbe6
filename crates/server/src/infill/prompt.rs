//! A prompt for the middle of a file, of as much of its texts as the context holds.

use backstop_protocol::{ApiError, ContextFile, ValidInfillRequest};
use backstop_text::{FimParts, FimTokens, PromptText};
use backstop_types::TokenId;

use crate::fim;
use crate::model::ServedModel;
use crate::prepare;

/// The field that errors name.
pub(super) const PARAM: &str = "input_prefix";
/// The part of the context that is left to an answer whose length is open: one in so many.
const OPEN_ANSWER_SHARE: usize = 4;
/// Bytes of a text that are looked at for each token that there is room for.
const BYTES_PER_TOKEN: usize = 16;
/// What stands between texts where the vocabulary has nothing for it, as llama.cpp has it.
const SNIPPET: &str = "\n\n--- snippet ---\n\n";
/// Names that nobody gave, as llama.cpp has them.
const REPOSITORY: &str = "myproject\n";
const THIS_FILE: &str = "filename\n";
const OTHER_FILE: &str = "tmp";

/// A prompt.
pub(super) struct Trimmed {
    pub(super) tokens: Vec<TokenId>,
    /// Something of the text before or behind the middle is missing.
    pub(super) is_cut: bool,
}

/// Makes a prompt. Of what is too long, the text before the middle gets three quarters and keeps its
/// end, the text behind it a quarter and keeps its beginning; other files get what they leave, the last
/// ones first.
pub(super) fn build(
    model: &ServedModel,
    fim: &FimTokens,
    request: &ValidInfillRequest,
) -> Result<Trimmed, ApiError> {
    let context = model.max_model_len as usize;
    let answer = request.sampling.max_tokens;
    let answer_length = answer.map_or(context / OPEN_ANSWER_SHARE, |tokens| tokens.max(1) as usize);
    let overhead = fim.overhead(&model.tokenizer);
    let overhead = overhead.map_err(|_| ApiError::internal())?;
    let room = context.saturating_sub(answer_length.saturating_add(overhead));
    if room == 0 {
        return Err(prepare::too_long(model, overhead + 1, answer, PARAM));
    }
    let prefix_text = last_bytes(&request.prefix, room * BYTES_PER_TOKEN);
    let suffix_text = first_bytes(&request.suffix, room * BYTES_PER_TOKEN);
    let mut prefix = encode(model, prefix_text)?;
    let suffix_max = suffix_text.len() + 1;
    let mut suffix = fim::encode_suffix(model, suffix_text.to_owned(), suffix_max, "input_suffix")?;
    let lengths = (
        request.prefix.len(),
        request.suffix.len(),
        prefix.len(),
        suffix.len(),
    );
    let prefix_share = (room * 3 / 4).max(room.saturating_sub(suffix.len()));
    keep_last(&mut prefix, prefix_share);
    suffix.truncate(room - prefix.len());
    let kept = (
        prefix_text.len(),
        suffix_text.len(),
        prefix.len(),
        suffix.len(),
    );
    let left = room - prefix.len() - suffix.len();
    let parts = FimParts {
        context: files(model, fim, &request.files, left)?,
        prefix,
        suffix,
    };
    Ok(Trimmed {
        tokens: fim::prompt(model, fim, parts, true)?,
        is_cut: kept != lengths,
    })
}

/// The other files, of at most so many tokens, in their order; of the first of them perhaps its end
/// alone.
fn files(
    model: &ServedModel,
    fim: &FimTokens,
    files: &[ContextFile],
    room: usize,
) -> Result<Vec<TokenId>, ApiError> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let head = match fim.repository() {
        Some(token) => headed(model, token, REPOSITORY)?,
        None => Vec::new(),
    };
    let foot = match fim.file() {
        Some(token) => headed(model, token, THIS_FILE)?,
        None => Vec::new(),
    };
    let mut left = room.saturating_sub(head.len() + foot.len());
    let mut chosen = Vec::new();
    for file in files.iter().rev() {
        let begin = match fim.file() {
            Some(token) => {
                let name = file.name.as_deref().unwrap_or(OTHER_FILE);
                headed(model, token, &format!("{name}\n"))?
            }
            None => encode(model, SNIPPET)?,
        };
        if begin.len() >= left {
            break;
        }
        left -= begin.len();
        let mut text = encode(model, last_bytes(&file.text, left * BYTES_PER_TOKEN))?;
        keep_last(&mut text, left);
        left -= text.len();
        chosen.push((begin, text));
    }
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let mut tokens = head;
    for (begin, text) in chosen.into_iter().rev() {
        tokens.extend(begin);
        tokens.extend(text);
    }
    tokens.extend(foot);
    Ok(tokens)
}

fn headed(model: &ServedModel, token: TokenId, text: &str) -> Result<Vec<TokenId>, ApiError> {
    let mut tokens = vec![token];
    tokens.extend(encode(model, text)?);
    Ok(tokens)
}

/// Encodes a text of limited length, in which nothing is a control token.
fn encode(model: &ServedModel, text: &str) -> Result<Vec<TokenId>, ApiError> {
    let text: PromptText = model.control_texts.as_text(text.to_owned());
    // No text has more tokens than bytes, but for a space that is put before it.
    let tokens_max = text.as_str().len() + 1;
    let tokens = model.tokenizer.encode_within(&text, false, tokens_max);
    tokens.map_err(|error| prepare::not_encoded(model, &error, text.as_str().len(), PARAM))
}

fn keep_last(tokens: &mut Vec<TokenId>, most: usize) {
    tokens.drain(..tokens.len().saturating_sub(most));
}

fn first_bytes(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most.min(text.len()))]
}

fn last_bytes(text: &str, most: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(most))..]
}
