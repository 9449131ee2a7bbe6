//! Constrained answers: from what a request asks for to the grammar that its answers follow.

use std::sync::{Arc, OnceLock};

use backstop_protocol::{
    ApiError, ConstraintPaths, OutputFormat, SamplingFields, ToolChoice, ValidChatRequest,
};
use backstop_text::ConstraintFactory;
use backstop_text::constraint::{
    AnswerShape, CallShape, CallableTool, Compiled, ConstraintError, ConstraintReason, GrammarPart,
    LeftOut, Opening, ReasoningBudget, TextShape,
};
use backstop_text::format::FORMATS;
use backstop_types::SharedConstraint;

use crate::job::Job;
use crate::journey::InFlight;
use crate::model::ServedModel;
use crate::server::InstalledModel;
use crate::trial::{GrammarWorker, TrialFailure, Trials};
use crate::work::{self, Cancelled};

/// What the answers of a job must look like, and which fields of the request said so.
#[derive(Debug)]
pub(crate) struct ConstraintRequest {
    shape: Arc<AnswerShape>,
    paths: ConstraintPaths,
}

/// Compiles grammars for a model, once its vocabulary has been sorted.
#[derive(Debug)]
pub(crate) struct Constraints {
    /// `None` if the vocabulary cannot be constrained.
    factory: OnceLock<Option<ConstraintFactory>>,
    trials: Trials,
}

/// Why there is no grammar.
enum Failure {
    /// The request is at fault.
    Refused(ConstraintError),
    /// The server is.
    Busy(std::io::Error),
}

impl Constraints {
    pub(crate) fn new(worker: Option<GrammarWorker>) -> Self {
        Self {
            factory: OnceLock::new(),
            trials: Trials::new(worker),
        }
    }

    /// Does what the first constrained request would have to wait for.
    pub(crate) fn warm_up(&self, model: &ServedModel) {
        if let Some(factory) = self.factory(model) {
            self.trials.warm_up(factory);
        }
    }

    /// Tries and compiles a grammar, as long as somebody is `waiting` for it. Blocks the thread.
    fn compile(
        &self,
        model: &ServedModel,
        shape: &AnswerShape,
        waiting: &dyn Fn() -> bool,
    ) -> Result<Compiled, Failure> {
        let whole = |reason| {
            Failure::Refused(ConstraintError {
                part: GrammarPart::Whole,
                reason,
                place: None,
            })
        };
        let factory = self.factory(model);
        let factory = factory.ok_or_else(|| whole(ConstraintReason::Unavailable))?;
        if let Some(found) = factory.find(shape) {
            return Ok(found);
        }
        ConstraintFactory::check(shape).map_err(Failure::Refused)?;
        if shape.is_foreign() {
            let tried = self.trials.run(factory, shape, waiting);
            tried.map_err(|failure| match failure {
                TrialFailure::TooMuch | TrialFailure::Abandoned => {
                    whole(ConstraintReason::TooComplex)
                }
                TrialFailure::Unavailable(error) => Failure::Busy(error),
            })?;
        }
        factory.compile_with_notes(shape).map_err(Failure::Refused)
    }

    /// The factory; whoever comes first makes it, and all others wait.
    fn factory(&self, model: &ServedModel) -> Option<&ConstraintFactory> {
        let make = || {
            let factory = ConstraintFactory::new(
                Arc::clone(&model.tokenizer),
                model.chat_format,
                &model.eos_token_ids,
                model.vocab_size as usize,
            );
            factory
                .inspect_err(|_| {
                    tracing::warn!("this vocabulary does not allow constrained output")
                })
                .ok()
        };
        self.factory.get_or_init(make).as_ref()
    }
}

/// What a chat's answer must look like; `None` if it is free.
pub(crate) fn of_chat(
    request: &ValidChatRequest,
    model: &ServedModel,
    opening: Opening,
) -> Result<Option<ConstraintRequest>, ApiError> {
    let paths = request.constraint_paths;
    let forced = is_forced(&request.tool_choice);
    if forced && !model.chat_format.calls_tools {
        return Err(no_tool_calls(paths.tool_choice, model.chat_format.id));
    }
    let tools = callable_tools(request);
    let calls_matter = forced
        || !request.parallel_tool_calls
        || request.allowed_tools.is_some()
        || tools.iter().any(|tool| tool.parameters.is_some());
    let callable = !tools.is_empty() && model.chat_format.calls_tools;
    let free_text = request.output_format == OutputFormat::Text;
    if free_text && !(callable && calls_matter) {
        return Ok(None);
    }
    check_combination(request, &paths, opening)?;
    let named = matches!(request.tool_choice, ToolChoice::Function(_));
    let shape = AnswerShape {
        opening,
        text: (!forced).then(|| text_shape(&request.output_format, request.format_is_binding)),
        calls: callable.then_some(CallShape {
            tools,
            // Who names a tool wants one call of it.
            parallel: request.parallel_tool_calls && !named,
        }),
    };
    Ok(Some(ConstraintRequest {
        shape: Arc::new(shape),
        paths,
    }))
}

fn is_forced(choice: &ToolChoice) -> bool {
    matches!(choice, ToolChoice::Required | ToolChoice::Function(_))
}

/// The tools that may be called. A model that is free to call none may call those that are not
/// strict with any arguments, as it could without a constraint.
fn callable_tools(request: &ValidChatRequest) -> Vec<CallableTool> {
    let forced = is_forced(&request.tool_choice);
    let is_callable = |name: &str| {
        let allowed = request.allowed_tools.as_ref();
        let allowed = allowed.is_none_or(|allowed| allowed.iter().any(|other| other == name));
        match &request.tool_choice {
            ToolChoice::Function(named) => named == name,
            _ => allowed,
        }
    };
    let tools = request.offered_tools().iter().enumerate();
    let tools = tools.filter_map(|(index, tool)| {
        let name = tool["function"]["name"].as_str()?;
        let is_strict = request.strict_tools.iter().any(|strict| strict == name);
        is_callable(name).then(|| CallableTool {
            index,
            name: name.to_owned(),
            parameters: (forced || is_strict).then(|| tool["function"]["parameters"].clone()),
            strict: is_strict,
        })
    });
    tools.collect()
}

fn text_shape(format: &OutputFormat, is_binding: bool) -> TextShape {
    match format {
        OutputFormat::JsonSchema(schema) if !is_binding => TextShape::JsonHint(schema.clone()),
        OutputFormat::Text => TextShape::Any,
        OutputFormat::JsonObject => TextShape::JsonObject,
        OutputFormat::JsonSchema(schema) => TextShape::Json(schema.clone()),
        OutputFormat::Regex(pattern) => TextShape::Regex(pattern.clone()),
        OutputFormat::Choice(choices) => TextShape::Choice(choices.clone()),
        OutputFormat::Grammar(grammar) => TextShape::Lark(grammar.clone()),
    }
}

/// Refuses what contradicts a constrained answer.
fn check_combination(
    request: &ValidChatRequest,
    paths: &ConstraintPaths,
    opening: Opening,
) -> Result<(), ApiError> {
    check_sampling(&request.sampling)?;
    let begins_late = "must not be set where a text is continued, or no turn is begun";
    // Behind reasoning that is continued the whole answer is still to come.
    let goes_on = request.continue_final_message && opening != Opening::Text;
    let begins = request.add_generation_prompt || goes_on;
    if !begins && request.output_format != OutputFormat::Text {
        return Err(ApiError::invalid_field(paths.output_format, begins_late));
    }
    if !begins && is_forced(&request.tool_choice) {
        return Err(ApiError::invalid_field(paths.tool_choice, begins_late));
    }
    Ok(())
}

/// A grammar says when an answer ends; nothing else may keep it going.
fn check_sampling(fields: &SamplingFields) -> Result<(), ApiError> {
    const REQUIREMENT: &str = "must not be set where the answer is constrained";
    if fields.ignore_eos {
        return Err(ApiError::invalid_field("ignore_eos", REQUIREMENT));
    }
    if fields.min_tokens > 0 {
        return Err(ApiError::invalid_field("min_tokens", REQUIREMENT));
    }
    Ok(())
}

/// What the answers of a job follow: the grammar that was asked for, within what the request allows of
/// reasoning.
pub(crate) async fn of_job(request: &InFlight, job: &Job) -> Result<Enforced, ApiError> {
    let mut enforced = match &job.constraint {
        Some(asked) => compile(request, asked).await?,
        None => Enforced::default(),
    };
    if let Some(tokens) = job.reasoning_budget {
        let budget = ReasoningBudget {
            tokens,
            tokenizer: Arc::clone(&request.model.served.tokenizer),
            format: job.format,
            opening: job.opening,
            grammar: enforced.constraint,
        };
        enforced.constraint = budget.into_constraint();
    }
    Ok(enforced)
}

/// Compiles a grammar, away from the threads that serve streams.
async fn compile(request: &InFlight, asked: &ConstraintRequest) -> Result<Enforced, ApiError> {
    let (model, shape) = (Arc::clone(&request.model), Arc::clone(&asked.shape));
    let compile = move |cancelled: &Cancelled| {
        let waiting = || !cancelled.is_set();
        let InstalledModel {
            served,
            constraints,
            ..
        } = &*model;
        constraints.compile(served, &shape, &waiting)
    };
    let compiled = work::grammar(&request.guard, compile).await?;
    let compiled = compiled.map_err(|failure| match failure {
        Failure::Refused(error) => refusal(asked, error),
        Failure::Busy(error) => {
            tracing::error!(%error, "no process can try grammars");
            request.guard.server.deadline_exceeded()
        }
    })?;
    let note = |left_out: &LeftOut| format!("{} {}", asked.path(left_out.part), left_out.keyword);
    let notes: Vec<String> = compiled.left_out.iter().map(note).collect();
    Ok(Enforced {
        constraint: Some(compiled.constraint),
        not_enforced: Some(notes.join(", ")).filter(|notes| !notes.is_empty()),
    })
}

/// What answers are held to, and what of the request they are not.
#[derive(Debug, Default)]
pub(crate) struct Enforced {
    /// Absent where anything may be said.
    pub(crate) constraint: Option<SharedConstraint>,
    /// Paths of schemas, each with a keyword. Nothing of it is the client's own words.
    pub(crate) not_enforced: Option<String>,
}

impl ConstraintRequest {
    /// The field of the request that holds a part.
    fn path(&self, part: GrammarPart) -> String {
        match part {
            GrammarPart::Tool(index) => self.paths.tool_schema(index),
            GrammarPart::Whole if self.shape.calls.is_some() => self.paths.tools.to_owned(),
            GrammarPart::Text | GrammarPart::Whole => self.paths.output_format.to_owned(),
        }
    }
}

fn refusal(request: &ConstraintRequest, error: ConstraintError) -> ApiError {
    let param = request.path(error.part);
    // Numbers stand in it for the names of properties, which are the client's.
    let place = error
        .place
        .map_or(String::new(), |place| format!(" at {place}"));
    match error.reason {
        ConstraintReason::Keyword(keyword) => {
            let explanation = format!("what it says with '{keyword}'{place} cannot be enforced");
            ApiError::unsupported_field(param, &explanation)
        }
        ConstraintReason::Construct(construct) => {
            let explanation =
                format!("the expression{place} has {construct}, which cannot be enforced");
            ApiError::unsupported_field(param, &explanation)
        }
        ConstraintReason::Unsatisfiable => {
            ApiError::invalid_field(param, "must be such that something satisfies it")
        }
        ConstraintReason::TooComplex => {
            ApiError::unsupported_field(param, "it is too complex to be enforced")
        }
        ConstraintReason::Invalid => {
            ApiError::invalid_field(param, "must be a valid schema, expression or grammar")
        }
        ConstraintReason::NoToolCalls(format) => no_tool_calls(request.paths.tool_choice, format),
        ConstraintReason::ParameterName => {
            let explanation =
                "the chat format of this model cannot write a required parameter of that name";
            ApiError::unsupported_field(param, explanation)
        }
        ConstraintReason::Unavailable => {
            let explanation = "the vocabulary of this model does not allow constrained output";
            ApiError::unsupported_field(param, explanation)
        }
    }
}

/// Tells who runs the server which chat formats have what the request asks for.
fn no_tool_calls(param: &'static str, format: &str) -> ApiError {
    let calling = FORMATS.iter().filter(|format| format.calls_tools);
    let calling: Vec<&str> = calling.map(|format| format.id).collect();
    let explanation = format!(
        "the chat format '{format}' of this model has no tool calls; the server's --chat-format \
         names another where the model was trained on one: {}",
        calling.join(", ")
    );
    ApiError::unsupported_field(param, &explanation)
}
