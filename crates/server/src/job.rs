//! What a request wants generated, whatever endpoint it came through.

use std::sync::Arc;

use backstop_protocol::{ApiError, SamplingFields};
use backstop_text::constraint::Opening;
use backstop_text::{ChatFormat, OfferedTools, chat_format};
use backstop_types::{SharedConstraint, StopConditions, TokenId};

use crate::constraint::ConstraintRequest;

/// One prompt, ready for the engine.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) tokens: Arc<[TokenId]>,
    pub(crate) stop: Arc<StopConditions>,
    /// The answer, where that is known; instead of the job's constraint.
    pub(crate) forced: Option<SharedConstraint>,
}

impl Prompt {
    /// How many tokens it has.
    pub(crate) fn length(&self) -> u32 {
        u32::try_from(self.tokens.len()).unwrap_or(u32::MAX)
    }

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

/// Prompts, and how they are to be answered.
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
