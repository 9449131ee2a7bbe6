//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, as vLLM has them.

mod of_encoder;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use backstop_protocol::{
    ApiError, Detokenized, TokenizeInput, Tokenized, TokenizerInfo, ValidDetokenizeRequest,
    ValidTokenizeRequest,
};
use backstop_text::PromptText;
use backstop_types::TokenId;

use crate::encoders::AnyModel;
use crate::endpoint::{Found, Inquiry};
use crate::reply::{self, ErrorReply};
use crate::server::Server;
use crate::{chat, prepare};

/// `POST /tokenize`.
pub(crate) struct Tokenize;

/// `POST /detokenize`.
pub(crate) struct Detokenize;

/// `GET /tokenizer_info`.
pub(crate) async fn info(State(server): State<Server>) -> Result<Response, ErrorReply> {
    let model = &server.ready_model()?.served;
    let info = TokenizerInfo {
        tokenizer_class: "PreTrainedTokenizerFast",
        bos_token: Some(model.bos_token.as_str()).filter(|token| !token.is_empty()),
        eos_token: Some(model.eos_token.as_str()).filter(|token| !token.is_empty()),
        pad_token: model.pad_token.as_deref(),
        model_max_length: model.max_model_len,
        chat_template: model.default_template_source(),
    };
    Ok(reply::json(StatusCode::OK, &info))
}

impl Inquiry for Tokenize {
    type Reply = Tokenized;
    const COUNTS_TOKENS: bool = true;

    fn inquire(server: &Server, body: &[u8]) -> Result<Found<Tokenized>, ApiError> {
        let unsupported = server.config().unsupported_content;
        let request = ValidTokenizeRequest::from_bytes(body, unsupported)?;
        let model = match server.any_model(request.model.as_deref())? {
            AnyModel::Generating(model) => &model.served,
            AnyModel::Encoder(encoder) => return of_encoder::tokenize(encoder, &request),
        };
        let special = request.add_special_tokens;
        let tokens = match request.input {
            TokenizeInput::Text(text) => {
                prepare::count(model, &PromptText::raw(text), special, "prompt")?
            }
            TokenizeInput::Chat(mut chat) => {
                chat::tokenize(server, model, &mut chat, special, "messages")?
            }
        };
        let write = |token: &TokenId| {
            let written = model.tokenizer.id_to_token(*token);
            written.unwrap_or_else(|| model.tokenizer.token_text(*token))
        };
        let count = tokens.len();
        let strings = || tokens.iter().map(write).collect();
        let reply = Tokenized {
            count,
            max_model_len: model.max_model_len,
            token_strs: request.return_token_strs.then(strings),
            tokens,
        };
        let tokens = count;
        Ok(Found { reply, tokens })
    }
}

impl Inquiry for Detokenize {
    type Reply = Detokenized;
    const COUNTS_TOKENS: bool = true;

    fn inquire(server: &Server, body: &[u8]) -> Result<Found<Detokenized>, ApiError> {
        let request = ValidDetokenizeRequest::from_bytes(body)?;
        let model = match server.any_model(request.model.as_deref())? {
            AnyModel::Generating(model) => &model.served,
            AnyModel::Encoder(encoder) => return of_encoder::detokenize(encoder, &request),
        };
        let tokens_max = prepare::counted_tokens_max(model);
        if request.tokens.len() > tokens_max {
            let requirement = format!("must have at most {tokens_max} elements");
            return Err(ApiError::invalid_field("tokens", &requirement));
        }
        prepare::check_known(model, &request.tokens, "tokens")?;
        let text = model.tokenizer.decode(&request.tokens, false);
        let prompt = text.map_err(|error| {
            tracing::warn!(%error, "tokens could not be decoded");
            ApiError::invalid_field("tokens", "cannot be decoded")
        })?;
        Ok(Found {
            reply: Detokenized { prompt },
            tokens: request.tokens.len(),
        })
    }
}
