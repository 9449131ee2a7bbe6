//! From a body to prompts of token ids that fit the model: everything that costs time before the
//! engine is asked, kept away from the threads that serve streams when it costs much.

use std::sync::Arc;

use backstop_protocol::{ApiError, SamplingFields};
use backstop_text::constraint::Opening;
use backstop_text::{ChatFormat, OfferedTools, PromptText, TokenizerError, chat_format};
use backstop_types::{SharedConstraint, StopConditions, TokenId};

use crate::body::BudgetedBody;
use crate::constraint::ConstraintRequest;
use crate::model::ServedModel;
use crate::sampling;
use crate::server::{InstalledModel, RequestGuard, Server};
use crate::work::{self, Cancelled};

/// Bodies up to this size take about a millisecond and are prepared in place; larger ones on a
/// thread of their own.
const IN_PLACE_BYTES_MAX: usize = 4 << 10;
/// Contexts that a text may fill whose tokens are wanted, but no answer.
const COUNTED_CONTEXTS: usize = 4;
/// Tokens of all prompts of one request, unless the context is longer.
const PROMPTS_TOKENS_MAX: usize = 1 << 20;

/// One prompt, ready for the engine.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) tokens: Arc<[TokenId]>,
    pub(crate) stop: Arc<StopConditions>,
    /// The answer, where that is known; instead of the job's constraint.
    pub(crate) forced: Option<SharedConstraint>,
}

impl Prompt {
    /// The same, whose answers end at these tokens as well.
    #[must_use]
    pub(crate) fn ending_at(mut self, tokens: impl IntoIterator<Item = TokenId>) -> Self {
        let ids = &mut Arc::make_mut(&mut self.stop).stop_token_ids;
        ids.extend(tokens);
        ids.sort_unstable();
        ids.dedup();
        self
    }
}

/// What a request wants generated, whatever endpoint it came through.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) prompts: Vec<Prompt>,
    pub(crate) sampling: SamplingFields,
    pub(crate) priority: i32,
    /// The field of the request that held the prompt, for errors.
    pub(crate) param: &'static str,
    /// How to read the answers.
    pub(crate) format: &'static ChatFormat,
    /// Where in the assistant's turn the answers begin.
    pub(crate) opening: Opening,
    /// Tokens of reasoning at most.
    pub(crate) reasoning_budget: Option<u32>,
    pub(crate) parse_tools: bool,
    /// The tools on offer, for formats that need them to read calls.
    pub(crate) tools: OfferedTools,
    /// What the answers must look like.
    pub(crate) constraint: Option<ConstraintRequest>,
    /// Report the ids of the answers' tokens.
    pub(crate) return_token_ids: bool,
}

impl Job {
    /// A job whose answers are texts, whatever the model says.
    pub(crate) fn of_texts(
        prompts: Vec<Prompt>,
        sampling: SamplingFields,
        priority: i32,
        param: &'static str,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            prompts,
            sampling,
            priority,
            param,
            format: chat_format("plain").ok_or_else(ApiError::internal)?,
            opening: Opening::Turn,
            reasoning_budget: None,
            parse_tools: false,
            tools: OfferedTools::default(),
            constraint: None,
            return_token_ids: false,
        })
    }

    /// Ends the answers after `max_tokens`, or where the context ends; whether that comes first.
    pub(crate) fn limit_answers(&mut self, max_tokens: u32) -> bool {
        self.sampling.max_tokens = Some(max_tokens);
        let mut cut_by_context = false;
        for prompt in &mut self.prompts {
            let room = prompt.stop.max_tokens;
            cut_by_context |= room < max_tokens;
            prompt.stop = Arc::new(StopConditions {
                max_tokens: room.min(max_tokens),
                ..StopConditions::clone(&prompt.stop)
            });
        }
        cut_by_context
    }

    /// Tokens of the prompt that choice `index` answers.
    pub(crate) fn prompt_of(&self, index: usize) -> &Prompt {
        &self.prompts[index / self.sampling.choices as usize]
    }

    /// Tokens of all prompts, each counted once however many choices answer it, or known answers
    /// one after the other.
    pub(crate) fn prompt_tokens(&self) -> u32 {
        let is_another = |pair: &[Prompt]| !Arc::ptr_eq(&pair[0].tokens, &pair[1].tokens);
        let others = self.prompts.windows(2).filter(|pair| is_another(pair));
        let others = others.map(|pair| &pair[1]);
        let prompts = self.prompts.first().into_iter().chain(others);
        let tokens: usize = prompts.map(|prompt| prompt.tokens.len()).sum();
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// Sequences to generate.
    pub(crate) fn sequences(&self) -> usize {
        self.prompts.len() * self.sampling.choices as usize
    }
}

/// What an endpoint makes of a body.
pub(crate) type Preparation<T> = fn(&Server, &ServedModel, &[u8]) -> Result<T, ApiError>;

/// Runs `prepare` on the body of `request`.
pub(crate) async fn run<T: Send + 'static>(
    request: &RequestGuard,
    model: &Arc<InstalledModel>,
    body: BudgetedBody,
    prepare: Preparation<T>,
) -> Result<T, ApiError> {
    if body.text().len() <= IN_PLACE_BYTES_MAX {
        let server = &request.server;
        return work::short(request, || prepare(server, &model.served, body.text())).await?;
    }
    let (server, model) = (request.server.clone(), Arc::clone(model));
    let prepare = move |_: &Cancelled| {
        // The whole body, so that what it holds of the budget is held until the work ends.
        let body = body;
        prepare(&server, &model.served, body.text())
    };
    work::long(request, "preparing a prompt", prepare).await?
}

/// The name that answers carry, if the model that was asked for is served.
pub(crate) fn resolve_model_name(
    server: &Server,
    model: &ServedModel,
    asked: Option<String>,
) -> Result<String, ApiError> {
    let config = server.config();
    match asked.filter(|name| !name.is_empty()) {
        None => Ok(config.default_model_name(&model.root).to_owned()),
        Some(name) if config.serves(&name) => Ok(name),
        Some(_) => Err(ApiError::model_not_found(
            config.default_model_name(&model.root),
        )),
    }
}

/// Encodes a prompt that is to be answered.
pub(crate) fn encode(
    model: &ServedModel,
    prompt: &PromptText,
    add_special_tokens: bool,
    param: &'static str,
) -> Result<Vec<TokenId>, ApiError> {
    let tokens_max = model.max_model_len as usize;
    encode_within(model, prompt, add_special_tokens, (tokens_max, param))
}

/// Encodes a prompt whose tokens alone are wanted.
pub(crate) fn count(
    model: &ServedModel,
    prompt: &PromptText,
    add_special_tokens: bool,
    param: &'static str,
) -> Result<Vec<TokenId>, ApiError> {
    encode_within(
        model,
        prompt,
        add_special_tokens,
        (counted_tokens_max(model), param),
    )
}

/// Tokens that are counted, or made text of, without being answered.
pub(crate) fn counted_tokens_max(model: &ServedModel) -> usize {
    model.max_model_len as usize * COUNTED_CONTEXTS
}

fn encode_within(
    model: &ServedModel,
    prompt: &PromptText,
    add_special_tokens: bool,
    (tokens_max, param): (usize, &'static str),
) -> Result<Vec<TokenId>, ApiError> {
    let tokenizer = &model.tokenizer;
    let tokens = tokenizer.encode_within(prompt, add_special_tokens, tokens_max);
    tokens.map_err(|error| not_encoded(model, &error, prompt.as_str().len(), param))
}

/// The answer to a text of so many bytes that could not be encoded.
pub(crate) fn not_encoded(
    model: &ServedModel,
    error: &TokenizerError,
    bytes: usize,
    param: &'static str,
) -> ApiError {
    match *error {
        TokenizerError::TooLong { tokens } => too_long(model, tokens, None, param),
        TokenizerError::Unbroken => ApiError::invalid_field(
            param,
            "has so long a stretch without a word or a line that ends that it cannot be tokenised",
        ),
        _ => {
            // The tokenizer's own words may repeat the text.
            tracing::warn!(param, bytes, "a text could not be tokenised");
            ApiError::invalid_field(param, "cannot be tokenised")
        }
    }
}

/// Refuses more prompts than one request may bring, all of them together.
pub(crate) fn check_together(
    model: &ServedModel,
    tokens: usize,
    param: &'static str,
) -> Result<(), ApiError> {
    let tokens_max = PROMPTS_TOKENS_MAX.max(model.max_model_len as usize);
    match tokens > tokens_max {
        true => {
            let requirement = format!("must have at most {tokens_max} tokens in all");
            Err(ApiError::invalid_field(param, &requirement))
        }
        false => Ok(()),
    }
}

/// Checks a prompt against vocabulary and context, and says when its answers end.
pub(crate) fn fit(
    model: &ServedModel,
    fields: &SamplingFields,
    tokens: Vec<TokenId>,
    param: &'static str,
) -> Result<Prompt, ApiError> {
    if tokens.is_empty() {
        return Err(ApiError::invalid_field(param, "must not be empty"));
    }
    check_known(model, &tokens, param)?;
    let room = (model.max_model_len as usize).saturating_sub(tokens.len());
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    let max_tokens = match fields.max_tokens {
        _ if room == 0 => return Err(too_long(model, tokens.len(), None, param)),
        Some(asked) if asked > room => {
            return Err(too_long(model, tokens.len(), Some(asked), param));
        }
        Some(asked) => asked,
        None => room.min(fields.default_max_tokens.unwrap_or(room)),
    };
    let stop = sampling::stop_conditions(model, fields, max_tokens);
    Ok(Prompt {
        tokens: tokens.into(),
        stop,
        forced: None,
    })
}

/// Refuses tokens that the model cannot read.
pub(crate) fn check_known(
    model: &ServedModel,
    tokens: &[TokenId],
    param: &'static str,
) -> Result<(), ApiError> {
    match tokens.iter().all(|token| model.knows_token(*token)) {
        true => Ok(()),
        false => Err(ApiError::invalid_field(
            param,
            "must name tokens of the model's vocabulary",
        )),
    }
}

pub(crate) fn too_long(
    model: &ServedModel,
    prompt_tokens: usize,
    completion_tokens: Option<u32>,
    param: &'static str,
) -> ApiError {
    let prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
    ApiError::context_length(param, model.max_model_len, prompt_tokens, completion_tokens)
}
