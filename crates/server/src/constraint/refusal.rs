//! What a client learns of a constraint that is not enforced.

use backstop_protocol::ApiError;
use backstop_text::constraint::{ConstraintError, ConstraintReason};
use backstop_text::format::FORMATS;

use super::ConstraintRequest;

/// The error of a request for a constraint that cannot be enforced.
pub(super) fn of(request: &ConstraintRequest, error: ConstraintError) -> ApiError {
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
pub(super) fn no_tool_calls(param: &'static str, format: &str) -> ApiError {
    let calling = FORMATS.iter().filter(|format| format.calls_tools());
    let calling: Vec<&str> = calling.map(|format| format.id).collect();
    let explanation = format!(
        "the chat format '{format}' of this model has no tool calls; the server's --chat-format \
         names another where the model was trained on one: {}",
        calling.join(", ")
    );
    ApiError::unsupported_field(param, &explanation)
}
