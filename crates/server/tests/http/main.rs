//! The server from outside: real sockets, a real engine, and an executor that follows a script.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers as well"
)]

mod admission;
mod anthropic;
mod chat;
mod completions;
mod connections;
mod constrained;
mod cors;
mod decisions;
mod embeddings;
mod encodings;
mod fairness;
mod fim;
mod framing;
mod hangs;
mod histories;
mod hostile;
mod large_json;
mod limits;
mod ollama;
mod patience;
mod reasoning;
mod rerank;
mod responses;
mod routes;
mod status;
mod support;
mod templates;
mod texts;
mod tls;
mod tokens;
