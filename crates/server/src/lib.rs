//! The HTTP side: routes, streams, keys, limits, health and metrics.
//!
//! Three files say what becomes of a request: [`routes`] has the table of routes, the [`envelope`] is
//! what stands before all of them, and the [`journey`] leads those that use the model from their arrival
//! to their answer. What is peculiar to a route is in the module named like it.
//!
//! Invariant: no tensor and no device. Invariant: nothing here blocks the engine; it is asked
//! through its queue and read through its statistics.
//!
//! Invariant: no prompt, answer or key is ever logged, but in the audit log, prompts and answers, if the operator asks for it.

mod access_log;
mod account;
mod admission;
mod answer;
mod answer_stream;
mod body;
mod budget;
mod chat;
mod choice;
mod completions;
mod condition;
mod config;
mod constraint;
mod cors;
mod decisions;
mod dialect;
mod embeddings;
mod encoders;
mod endpoint;
mod entropy;
mod envelope;
mod exchange;
mod fim;
mod gate;
mod identity;
mod in_flight;
mod infill;
mod job;
mod journey;
mod keys;
mod lane;
mod logprobs;
mod look;
mod messages;
mod metrics;
mod mistral_fim;
mod model;
mod names;
mod ollama;
mod openapi;
mod page;
mod paths;
mod patience;
mod prepare;
mod probes;
mod progress;
mod provenance;
mod record;
mod reply;
mod rerank;
mod responses;
mod routes;
mod salts;
mod sampling;
mod serve;
mod server;
mod sse;
mod stamp;
mod status;
mod timer;
mod tls;
mod tokens;
mod trace_context;
mod traces;
mod trial;
mod turns;
mod unpacking;
mod work;

pub use condition::Condition;
pub use config::ServerConfig;
pub use cors::{Cors, CorsError, CorsSettings};
pub use encoders::ServedEncoder;
pub use gate::{AdmissionProfile, QueueLimits};
pub use keys::{KeyFileError, KeySet, KeySettings, key_file_complaint, key_line};
pub use lane::Lane;
pub use model::{GenerationDefaults, ModelFacts, ServedModel};
pub use ollama::{REFUSED_ROUTES, RefusedRoute};
pub use openapi::DOCUMENT as OPENAPI;
pub use provenance::Provenance;
pub use serve::{Listener, ProbeThread, listen, serve, serve_probes};
#[cfg(unix)]
pub use serve::{SocketFile, UnixSocket};
pub use server::Server;
pub use status::CanaryResult;
pub use tls::{ClientAuthorities, Tls, TlsError, TlsFiles};
pub use traces::{SpanExporter, Traces};
pub use trial::GrammarWorker;
