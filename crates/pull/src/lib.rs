//! Fetches a model from a Hugging Face hub into the store: the only part of Backstop that goes to the internet, a program of its
//! own that the server neither links nor starts.
//!
//! hf-hub has the addresses of repositories and files, the shape of what the hub says of them, and the place of the
//! user's token. What it fetches itself (0.5.0) it fetches in one stream without timeouts, appends the answer to a part
//! file whether or not it begins where that ends, uses an entity tag from the server as a path, and compares no digest;
//! there is no way to give it a private certificate authority. 1.0 brings Xet and an asynchronous runtime, and does not
//! resume over HTTP. So the transfer is made here with ureq, which hf-hub uses too: in parts, each checked to be what was
//! asked for and noted when it is on disk, and with the digest of each file at the end.

mod args;
mod catalogue;
mod digests;
mod error;
mod existing;
mod gguf;
mod hub;
mod journal;
mod listing;
mod names;
mod patience;
mod placing;
mod progress;
mod pull;
mod redirects;
mod request;
mod selection;
mod settings;
mod space;
mod tasks;
mod transfer;
mod work;

pub use args::CommandLine;
pub use error::PullError;
pub use patience::Patience;
pub use pull::{Outcome, pull, run};
pub use settings::Settings;
