//! One choice of an answer: follows its generation and turns tokens into what the client sees.

use std::mem;
use std::sync::Arc;

use backstop_engine::{Generation, GenerationEvent};
use backstop_protocol::{ApiError, FinishReason, StopReason};
use backstop_text::{ParsedEvent, TextStream};
use backstop_types::{
    FinishReason as EngineReason, SampledToken, SharedConstraint, TokenId, TokenLogprobs,
};
use serde::de::IgnoredAny;

use crate::metrics::FinishLabel;
use crate::reply;
use crate::server::Server;
use crate::timer::{ChoiceTimer, Phases};

/// What is new about one choice. Everything that had happened by the time somebody looked is in
/// one update, so that a slow client gets fewer and larger pieces.
#[derive(Debug, Default)]
pub(crate) struct Update {
    /// Number of the choice among all choices of the request.
    pub(crate) index: usize,
    /// New text and tool calls, in order.
    pub(crate) events: Vec<ParsedEvent>,
    /// New tokens with their log-probabilities, if they were asked for.
    pub(crate) tokens: Vec<SampledToken>,
    /// Log-probabilities of further tokens of the prompt, if they were asked for. They come before
    /// everything else.
    pub(crate) prompt_logprobs: Vec<TokenLogprobs>,
    /// The ids of all new tokens, those that are not shown included, if they were asked for.
    pub(crate) token_ids: Vec<TokenId>,
    /// Counts so far.
    pub(crate) counts: Counts,
    /// Present in the last update.
    pub(crate) end: Option<End>,
    /// Present in the last update.
    pub(crate) phases: Option<Phases>,
}

/// Token counts of a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) cached: u32,
    pub(crate) generated: u32,
    pub(crate) reasoning: u32,
}

/// How a choice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) reason: FinishReason,
    pub(crate) stop_reason: Option<StopReason>,
}

/// What the choices of a request have in common.
#[derive(Debug)]
pub(crate) struct ChoiceRules {
    pub(crate) server: Server,
    /// Stop tokens that the request named itself: the client is told which one it was.
    pub(crate) named_stop_tokens: Vec<TokenId>,
    /// Tokens that end an answer and are no part of it.
    pub(crate) hidden_tokens: Vec<TokenId>,
    /// Whether the client wants the tokens' log-probabilities.
    pub(crate) report_tokens: bool,
    /// Whether a token that ends the answer is among them.
    pub(crate) report_stop_tokens: bool,
    /// Whether the client wants the tokens' ids.
    pub(crate) report_token_ids: bool,
    /// The grammar that the answers follow.
    pub(crate) constraint: Option<SharedConstraint>,
}

/// A choice in progress.
pub(crate) struct Choice {
    /// `None` once the choice has ended; dropping it aborts the sequence.
    generation: Option<Generation>,
    text: TextStream,
    rules: Arc<ChoiceRules>,
    timer: ChoiceTimer,
    admitted: bool,
    in_reasoning: bool,
    /// Tokens since the last event: what they belong to, the next one tells.
    unplaced_tokens: u32,
    /// The arguments of the last call so far; `None` if nothing was called.
    last_arguments: Option<String>,
    pending: Update,
    /// Told once what came before it has been handed on.
    failure: Option<ApiError>,
}

impl Choice {
    pub(crate) fn new(
        index: usize,
        generation: Generation,
        text: TextStream,
        rules: Arc<ChoiceRules>,
        timer: ChoiceTimer,
    ) -> Self {
        Self {
            generation: Some(generation),
            text,
            rules,
            timer,
            admitted: false,
            in_reasoning: false,
            unplaced_tokens: 0,
            last_arguments: None,
            pending: Update {
                index,
                ..Update::default()
            },
            failure: None,
        }
    }

    /// The same choice, whose prompt has opened a reasoning section.
    pub(crate) fn starting_in_reasoning(mut self, in_reasoning: bool) -> Self {
        self.in_reasoning = in_reasoning;
        self
    }

    /// Waits until the sequence has left the queue.
    pub(crate) async fn admitted(&mut self) -> Result<(), ApiError> {
        while !self.admitted && self.generation.is_some() {
            self.wait().await;
        }
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Counts so far: once the sequence has left the queue, its cached tokens are known.
    pub(crate) fn counts(&self) -> Counts {
        self.pending.counts
    }

    /// The next update; `None` after the last one, and after an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Update, ApiError>> {
        loop {
            while let Some(event) = self.generation.as_mut().and_then(Generation::try_next) {
                self.absorb(event);
            }
            let pending = &self.pending;
            let rated = !pending.prompt_logprobs.is_empty();
            if rated || !pending.events.is_empty() || pending.end.is_some() {
                return Some(Ok(self.take_pending()));
            }
            if let Some(error) = self.failure.take() {
                return Some(Err(error));
            }
            self.generation.as_ref()?;
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        let Some(generation) = &mut self.generation else {
            return;
        };
        match generation.next().await {
            Some(event) => self.absorb(event),
            None => self.fail(reply::engine_gone()),
        }
    }

    fn absorb(&mut self, event: GenerationEvent) {
        match event {
            GenerationEvent::Admitted { cached_tokens } => {
                self.admitted = true;
                self.pending.counts.cached = cached_tokens;
                self.timer.admitted();
            }
            GenerationEvent::PromptLogprobs(tokens) => self.pending.prompt_logprobs.extend(tokens),
            GenerationEvent::Token(token) => self.absorb_token(token),
            GenerationEvent::Finished { reason, .. } => self.absorb_end(reason),
        }
    }

    fn absorb_token(&mut self, token: SampledToken) {
        self.pending.counts.generated += 1;
        self.unplaced_tokens += 1;
        self.timer.token();
        let delta = self.text.push(token.id);
        self.absorb_events(delta.events);
        if self.rules.report_token_ids {
            self.pending.token_ids.push(token.id);
        }
        let stops = self.rules.hidden_tokens.contains(&token.id);
        if self.rules.report_tokens && (self.rules.report_stop_tokens || !stops) {
            self.pending.tokens.push(token);
        }
        if let Some(stop) = delta.stopped {
            self.end(FinishReason::Stop, Some(StopReason::Text(stop)));
        }
    }

    fn absorb_events(&mut self, events: Vec<ParsedEvent>) {
        for event in events {
            self.in_reasoning = matches!(event, ParsedEvent::ReasoningDelta(_));
            match &event {
                ParsedEvent::ToolCallStart { .. } => self.last_arguments = Some(String::new()),
                ParsedEvent::ToolCallArgumentsDelta { delta, .. } => {
                    self.last_arguments.get_or_insert_default().push_str(delta);
                }
                ParsedEvent::ReasoningDelta(_) | ParsedEvent::ContentDelta(_) => {}
            }
            self.place_tokens();
            append(&mut self.pending.events, event);
        }
    }

    fn place_tokens(&mut self) {
        let tokens = mem::take(&mut self.unplaced_tokens);
        if self.in_reasoning {
            self.pending.counts.reasoning += tokens;
        }
    }

    fn absorb_end(&mut self, reason: EngineReason) {
        match reason {
            EngineReason::Stop(token) => {
                let named = self.rules.named_stop_tokens.contains(&token);
                self.end(
                    FinishReason::Stop,
                    named.then_some(StopReason::Token(token)),
                );
            }
            EngineReason::Length => self.end(FinishReason::Length, None),
            EngineReason::Aborted => self.fail(reply::engine_gone()),
            EngineReason::DeadlineExceeded => self.fail(self.rules.server.deadline_exceeded()),
            EngineReason::ConstraintFailed => self.fail(ApiError::constraint_failed()),
            EngineReason::Failed => self.fail(ApiError::engine_failure()),
        }
    }

    fn end(&mut self, reason: FinishReason, stop_reason: Option<StopReason>) {
        self.generation = None;
        let held_back = self.text.finish();
        self.absorb_events(held_back);
        self.place_tokens();
        self.pending.phases = Some(self.timer.phases());
        let label = match reason {
            FinishReason::Length => FinishLabel::length,
            FinishReason::Stop | FinishReason::ToolCalls => FinishLabel::stop,
        };
        let reason = match reason {
            FinishReason::Stop if self.hands_over_calls(stop_reason.as_ref()) => {
                FinishReason::ToolCalls
            }
            reason => reason,
        };
        self.timer.ended(label, reason.name());
        self.pending.end = Some(End {
            reason,
            stop_reason,
        });
    }

    /// Whether what was called is to be run. What the client wanted to end the answer may have
    /// ended it inside of a call, and half of the arguments are not what the model meant.
    fn hands_over_calls(&self, stopped_by: Option<&StopReason>) -> bool {
        let Some(arguments) = &self.last_arguments else {
            return false;
        };
        stopped_by.is_none() || serde_json::from_str::<IgnoredAny>(arguments).is_ok()
    }

    fn fail(&mut self, error: ApiError) {
        self.generation = None;
        self.timer.ended(FinishLabel::error, "error");
        self.failure = Some(error);
    }

    fn take_pending(&mut self) -> Update {
        let next = Update {
            index: self.pending.index,
            counts: self.pending.counts,
            ..Update::default()
        };
        mem::replace(&mut self.pending, next)
    }
}

/// Appends an event; deltas of the same kind become one.
fn append(events: &mut Vec<ParsedEvent>, event: ParsedEvent) {
    use ParsedEvent::{ContentDelta, ReasoningDelta, ToolCallArgumentsDelta};
    match (events.last_mut(), &event) {
        (Some(ContentDelta(last)), ContentDelta(text))
        | (Some(ReasoningDelta(last)), ReasoningDelta(text)) => last.push_str(text),
        (
            Some(ToolCallArgumentsDelta {
                index: last_index,
                delta: last,
            }),
            ToolCallArgumentsDelta { index, delta },
        ) if last_index == index => last.push_str(delta),
        _ => events.push(event),
    }
}
