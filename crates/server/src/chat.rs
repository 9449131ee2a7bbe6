//! `POST /v1/chat/completions`.

mod prompt;
mod refusal;
mod stream;
mod whole;

use std::sync::Arc;

use axum::response::Response;
use backstop_protocol::{ApiError, CallForm, ChatChunks, StreamOptions, ValidChatRequest};
use backstop_text::{OfferedTools, ParsedEvent, Tokenizer};
use backstop_types::TokenId;

use self::stream::ChatWriter;
use crate::answer::Answer;
use crate::endpoint::{Endpoint, Task};
use crate::job::Job;
use crate::model::ServedModel;
use crate::server::Server;
use crate::{answer_stream, constraint, prepare, sampling, sse, stamp};

/// The field that holds the prompt.
const PARAM: &str = "messages";

/// A chat request of any endpoint, ready for the engine.
pub(crate) struct Chat {
    pub(crate) job: Job,
    pub(crate) model_name: String,
    pub(crate) stream: Option<StreamOptions>,
    pub(crate) include_reasoning: bool,
    /// If false, only the first call may be shown. Where a grammar allows no second one, it is
    /// true.
    pub(crate) parallel_tool_calls: bool,
    pub(crate) legacy_functions: bool,
    /// The chunk that ends a stream reports the usage.
    pub(crate) usage_at_end: bool,
}

/// How the answer to a chat is written.
struct Shape {
    chunks: ChatChunks,
    tokenizer: Arc<Tokenizer>,
    choices: usize,
    /// Alternatives to report for each token.
    alternatives: usize,
    include_reasoning: bool,
    parallel_tool_calls: bool,
    calls: CallForm,
    usage_at_end: bool,
    /// The ids of the prompt's tokens, if they were asked for.
    prompt_token_ids: Option<Arc<[TokenId]>>,
}

/// A request that is answered in the shape of a chat, whatever endpoint it came through.
pub(crate) struct ChatCompletions {
    shape: Shape,
    stream: Option<StreamOptions>,
}

impl Endpoint for ChatCompletions {
    fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError> {
        let request = ValidChatRequest::from_bytes(body, server.config().unsupported_content)?;
        let chat = prepare(server, model, request, PARAM)?;
        Ok(Self::task(server, model, chat))
    }

    async fn respond(self, answer: Answer) -> Result<Response, ApiError> {
        let Self { shape, stream } = self;
        match stream {
            Some(options) => {
                let writer = ChatWriter { shape, options };
                Ok(answer_stream::respond(answer, writer, sse::comment))
            }
            None => whole::respond(answer, &shape).await,
        }
    }
}

impl ChatCompletions {
    /// Lets the engine answer a chat.
    pub(crate) fn task(server: &Server, model: &ServedModel, chat: Chat) -> Task<Self> {
        let job = chat.job;
        let shape = Shape {
            chunks: ChatChunks::new(stamp::stamp(server, "chatcmpl", chat.model_name))
                .announcing_usage(chat.stream.is_some_and(|options| options.include_usage)),
            tokenizer: Arc::clone(&model.tokenizer),
            choices: job.sequences(),
            alternatives: job.sampling.logprobs.unwrap_or(0) as usize,
            include_reasoning: chat.include_reasoning,
            parallel_tool_calls: chat.parallel_tool_calls,
            calls: match chat.legacy_functions {
                true => CallForm::Function,
                false => CallForm::Tools,
            },
            usage_at_end: chat.usage_at_end,
            prompt_token_ids: prompt_token_ids(&job),
        };
        let endpoint = Self {
            shape,
            stream: chat.stream,
        };
        Task::generate(job, endpoint)
    }
}

/// Everything up to the token ids. `param` is the field that held the conversation.
pub(crate) fn prepare(
    server: &Server,
    model: &ServedModel,
    mut request: ValidChatRequest,
    param: &'static str,
) -> Result<Chat, ApiError> {
    let model_name = prepare::resolve_model_name(model, request.model.take())?;
    sampling::check_token_ids(model, &request.sampling)?;
    let rendered = prompt::render(server, model, &mut request, param)?;
    let constraint = constraint::of_chat(&request, model, rendered.opening)?;
    let tokens = prepare::encode(model, &rendered.text, false, param)?;
    let is_constrained = constraint.is_some();
    let prompt = prepare::fit(model, &request.sampling, tokens, param)?;
    Ok(Chat {
        job: Job {
            prompts: vec![prompt],
            priority: request.priority,
            param,
            format: model.chat_format,
            opening: rendered.opening,
            reasoning_budget: request.reasoning_budget,
            parse_tools: !request.offered_tools().is_empty(),
            tools: OfferedTools::new(request.offered_tools()),
            sampling: request.sampling,
            return_token_ids: request.return_token_ids,
            constraint,
        },
        model_name,
        stream: request.stream,
        include_reasoning: request.include_reasoning,
        parallel_tool_calls: request.parallel_tool_calls || is_constrained,
        legacy_functions: request.legacy_functions,
        usage_at_end: false,
    })
}

/// The token ids of a conversation, which may be longer than the context; takes the conversation
/// out of the request.
pub(crate) fn tokenize(
    server: &Server,
    model: &ServedModel,
    request: &mut ValidChatRequest,
    add_special_tokens: bool,
    param: &'static str,
) -> Result<Vec<TokenId>, ApiError> {
    let rendered = prompt::render(server, model, request, param)?;
    prepare::count(model, &rendered.text, add_special_tokens, param)
}

fn prompt_token_ids(job: &Job) -> Option<Arc<[TokenId]>> {
    let prompt = job.prompts.first().filter(|_| job.return_token_ids);
    prompt.map(|prompt| Arc::clone(&prompt.tokens))
}

impl Shape {
    /// Whether the client wants to see this.
    fn shows(&self, event: &ParsedEvent) -> bool {
        match event {
            ParsedEvent::ReasoningDelta(_) => self.include_reasoning,
            ParsedEvent::ContentDelta(_) => true,
            ParsedEvent::ToolCallStart { index, .. }
            | ParsedEvent::ToolCallArgumentsDelta { index, .. } => {
                self.parallel_tool_calls || *index == 0
            }
        }
    }
}
