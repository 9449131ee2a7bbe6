//! What the text of an answer must look like.

use serde_json::Value;

/// A constraint on the text of an answer. It binds the text alone, not the reasoning before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OutputFormat {
    /// Anything.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that satisfies this schema.
    JsonSchema(Value),
}
