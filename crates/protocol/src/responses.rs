//! `POST /v1/responses`: the request, and the wire form of its answer, whole and as a stream.
//!
//! The endpoint keeps nothing between requests: the whole conversation comes with each of them,
//! and what would refer to an earlier answer is refused.

mod continuation;
mod events;
mod failure;
mod history;
mod input;
mod reasoning;
mod request;
mod response;
mod tool_choice;
mod tools;
mod updates;

pub use events::{Event, PartKind, PartPlace};
pub use failure::sse_failure;
pub use reasoning::ReasoningForm;
pub use request::{ResponseEcho, ValidResponsesRequest};
pub(crate) use response::ResponseUsage;
pub use response::{ItemPart, OutputItem, ResponseBuilder, ResponseObject, Status};
pub use tools::{ToolKind, ToolOrigin, ToolTable};
