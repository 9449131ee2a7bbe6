//! Tokens of encoders, for requests that name one.

use backstop_protocol::{
    ApiError, Detokenized, TokenizeInput, Tokenized, ValidDetokenizeRequest, ValidTokenizeRequest,
};
use backstop_types::TokenId;

use crate::encoders::{InstalledEncoder, check_known, not_tokenized, strip};
use crate::endpoint::Found;

/// Inputs whose tokens are made text of at once.
const COUNTED_INPUTS: usize = 4;

/// The tokens of a text, which may be as long as an input.
pub(super) fn tokenize(
    model: &InstalledEncoder,
    request: &ValidTokenizeRequest,
) -> Result<Found<Tokenized>, ApiError> {
    let TokenizeInput::Text(text) = &request.input else {
        let explanation = "the model reads texts, not conversations";
        return Err(ApiError::unsupported_field("messages", explanation));
    };
    let encoder = &model.served.encoder;
    let input = encoder
        .tokens(text, false)
        .map_err(|fault| not_tokenized(model, fault, "prompt".to_owned()))?;
    let mut tokens = input.tokens;
    if !request.add_special_tokens {
        let frame = encoder.tokens("", true).unwrap_or_default().tokens;
        strip(&mut tokens, &frame);
    }
    let count = tokens.len();
    let write = |token: &TokenId| encoder.text(std::slice::from_ref(token));
    let strings = || tokens.iter().map(write).collect();
    let reply = Tokenized {
        count,
        max_model_len: model.facts().max_tokens,
        token_strs: request.return_token_strs.then(strings),
        tokens,
    };
    let tokens = count;
    Ok(Found { reply, tokens })
}

/// The text of tokens.
pub(super) fn detokenize(
    model: &InstalledEncoder,
    request: &ValidDetokenizeRequest,
) -> Result<Found<Detokenized>, ApiError> {
    const PARAM: &str = "tokens";
    let tokens_max = model.facts().max_tokens as usize * COUNTED_INPUTS;
    if request.tokens.len() > tokens_max {
        let requirement = format!("must have at most {tokens_max} elements");
        return Err(ApiError::invalid_field(PARAM, &requirement));
    }
    check_known(model, &request.tokens, || PARAM.to_owned())?;
    let prompt = model.served.encoder.text(&request.tokens);
    Ok(Found {
        reply: Detokenized { prompt },
        tokens: request.tokens.len(),
    })
}
