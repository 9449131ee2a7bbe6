//! Asks servers of OpenAI's API: addresses, keys, TLS, answers and when their pieces came. For the programs beside the
//! server, which has nothing to call others with.

mod answer;
mod connection;
mod endpoint;
mod error;
mod key;

pub use answer::{
    Answer, Failure, FailureKind, Limits, ToolCall, Usage, ask, ask_encoded, backstop_model, get,
    message_of,
};
pub use endpoint::{Endpoint, Exchange, explain};
pub use error::ClientError;
pub use hyper::HeaderMap;
pub use key::read_key;
