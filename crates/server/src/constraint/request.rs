//! From what a chat asks for to the shape that its answers must have.

use std::sync::Arc;

use backstop_protocol::{
    ApiError, ConstraintPaths, OutputFormat, SamplingFields, ToolChoice, ValidChatRequest,
};
use backstop_text::constraint::{
    AnswerShape, CallShape, CallableTool, GrammarPart, Opening, TextShape,
};

use super::refusal::no_tool_calls;
use crate::model::ServedModel;

/// What the answers of a job must look like, and which fields of the request said so.
#[derive(Debug)]
pub(crate) struct ConstraintRequest {
    pub(super) shape: Arc<AnswerShape>,
    pub(super) paths: ConstraintPaths,
}

impl ConstraintRequest {
    /// The field of the request that holds a part.
    pub(super) fn path(&self, part: GrammarPart) -> String {
        match part {
            GrammarPart::Tool(index) => self.paths.tool_schema(index),
            GrammarPart::Whole if self.shape.calls.is_some() => self.paths.tools.to_owned(),
            GrammarPart::Text | GrammarPart::Whole => self.paths.output_format.to_owned(),
        }
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
    if forced && !model.chat_format.calls_tools() {
        return Err(no_tool_calls(paths.tool_choice, model.chat_format.id));
    }
    let tools = callable_tools(request);
    let calls_matter = forced
        || !request.parallel_tool_calls
        || request.allowed_tools.is_some()
        || tools.iter().any(|tool| tool.parameters.is_some());
    let callable = !tools.is_empty() && model.chat_format.calls_tools();
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
