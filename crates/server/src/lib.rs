//! The HTTP side: routes, streams, keys, limits, health and metrics.
//!
//! One request passes through here in this order: the [`envelope`] checks who may call and what its
//! [`keys`] allow, [`body`] reads within limits, [`prepare`] makes token ids of it, the [`gate`]
//! lets it wait, [`answer`] hands it to the engine and waits until it begins, and [`chat`],
//! [`completions`], [`responses`] or another module named like its route writes what comes back. A
//! client that goes away drops the answer, and with it the sequences.
//!
//! Meanwhile [`patience`] tells the client that its request is at work.
//!
//! Invariant: no tensor and no device. Invariant: nothing here blocks the engine; it is asked
//! through its queue and read through its statistics.
//!
//! Invariant: no prompt, answer or key is ever logged.

mod answer;
mod answer_stream;
mod body;
mod budget;
mod chat;
mod choice;
mod completions;
mod config;
mod constraint;
mod cors;
mod decisions;
mod entropy;
mod envelope;
mod fim;
mod gate;
mod infill;
mod keys;
mod lane;
mod logprobs;
mod messages;
mod metrics;
mod mistral_fim;
mod model;
mod ollama;
mod openapi;
mod paths;
mod patience;
mod prepare;
mod probes;
mod provenance;
mod reply;
mod responses;
mod routes;
mod salts;
mod sampling;
mod serve;
mod server;
mod sse;
mod stamp;
mod timer;
mod tokens;
mod trial;
mod turns;
mod unpacking;
mod work;

pub use config::ServerConfig;
pub use cors::{Cors, CorsError, CorsSettings};
pub use gate::{AdmissionProfile, QueueLimits};
pub use keys::{KeyFileError, KeySet, KeySettings, key_file_complaint, key_line};
pub use lane::Lane;
pub use model::{GenerationDefaults, ModelFacts, ServedModel};
pub use provenance::Provenance;
pub use serve::{ProbeThread, listen, serve, serve_probes};
pub use server::Server;
pub use trial::GrammarWorker;
