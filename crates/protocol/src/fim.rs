//! The body of `POST /v1/fim/completions`, as Mistral has it: a completion with a suffix. What its
//! answer looks like is a chat's.

use crate::completions::{CompletionPrompt, ValidCompletionRequest};
use crate::error::ApiError;
use crate::fields::{Fields, parse_chat_body};
use crate::limits::MAX_LABEL_BYTES;
use crate::output_format::refuse_output_format;
use crate::sampling::{SamplingFields, parse_priority, parse_stream};
use crate::unsupported;

impl ValidCompletionRequest {
    /// Parses a body in Mistral's form; every error is a 400 that names the field. Without a suffix
    /// the prompt is continued.
    pub fn from_fim_bytes(body: &[u8]) -> Result<Self, ApiError> {
        let body = &parse_chat_body(body)?;
        let body = &Fields::of_body(body)?;
        let Some(prompt) = body.string("prompt")? else {
            return Err(body.missing("prompt"));
        };
        unsupported::check(body)?;
        refuse_output_format(body)?;
        let sampling = SamplingFields::parse(body, None)?;
        if sampling.choices != 1 {
            return Err(body.unsupported("n", "only 1 is available"));
        }
        let suffix = body.string("suffix")?.filter(|suffix| !suffix.is_empty());
        Ok(Self {
            model: body.label("model", MAX_LABEL_BYTES)?.map(str::to_owned),
            prompts: vec![CompletionPrompt::Text(prompt.to_owned())],
            suffix: suffix.map(str::to_owned),
            sampling,
            stream: parse_stream(body)?,
            echo: false,
            add_special_tokens: true,
            priority: parse_priority(body)?,
            user: None,
        })
    }
}
