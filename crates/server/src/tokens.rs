//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, as vLLM has them.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use backstop_protocol::{
    ApiError, Detokenized, TokenizeInput, Tokenized, TokenizerInfo, ValidDetokenizeRequest,
    ValidTokenizeRequest,
};
use backstop_text::PromptText;
use backstop_types::TokenId;

use crate::answer::Admission;
use crate::chat;
use crate::model::ServedModel;
use crate::prepare;
use crate::reply::{self, ErrorReply};
use crate::server::Server;

pub(crate) async fn tokenize(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    let answer = Admission::count_body(&server, request, encode).await?;
    Ok(reply::json(StatusCode::OK, &answer))
}

pub(crate) async fn detokenize(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    let answer = Admission::count_body(&server, request, decode).await?;
    Ok(reply::json(StatusCode::OK, &answer))
}

pub(crate) async fn info(State(server): State<Server>) -> Result<Response, ErrorReply> {
    let model = &server.ready_model()?.served;
    let info = TokenizerInfo {
        tokenizer_class: "PreTrainedTokenizerFast",
        bos_token: Some(model.bos_token.as_str()).filter(|token| !token.is_empty()),
        eos_token: Some(model.eos_token.as_str()).filter(|token| !token.is_empty()),
        pad_token: model.pad_token.as_deref(),
        model_max_length: model.max_model_len,
        chat_template: model.template.as_ref().map(|template| template.source()),
    };
    Ok(reply::json(StatusCode::OK, &info))
}

fn encode(
    server: &Server,
    model: &ServedModel,
    body: &[u8],
) -> Result<(usize, Tokenized), ApiError> {
    let unsupported = server.config().unsupported_content;
    let request = ValidTokenizeRequest::from_bytes(body, unsupported)?;
    prepare::resolve_model_name(server, model, request.model)?;
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
    let answer = Tokenized {
        count,
        max_model_len: model.max_model_len,
        token_strs: request
            .return_token_strs
            .then(|| tokens.iter().map(write).collect()),
        tokens,
    };
    Ok((count, answer))
}

fn decode(
    server: &Server,
    model: &ServedModel,
    body: &[u8],
) -> Result<(usize, Detokenized), ApiError> {
    let request = ValidDetokenizeRequest::from_bytes(body)?;
    prepare::resolve_model_name(server, model, request.model)?;
    let tokens_max = prepare::counted_tokens_max(model);
    if request.tokens.len() > tokens_max {
        let requirement = format!("must have at most {tokens_max} elements");
        return Err(ApiError::invalid_field("tokens", &requirement));
    }
    if !request.tokens.iter().all(|token| model.knows_token(*token)) {
        let requirement = "must name tokens of the model's vocabulary";
        return Err(ApiError::invalid_field("tokens", requirement));
    }
    let text = model.tokenizer.decode(&request.tokens, false);
    let prompt = text.map_err(|error| {
        tracing::warn!(%error, "tokens could not be decoded");
        ApiError::invalid_field("tokens", "cannot be decoded")
    })?;
    Ok((request.tokens.len(), Detokenized { prompt }))
}
