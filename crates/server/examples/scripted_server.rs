//! A server whose model says what it is told to, for tests with real clients:
//! `scripted_server FIRST-ANSWER SECOND-ANSWER…`, each with the tags that a model would write. The
//! last answer is said again and again. The first line printed is the address.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for tests: what goes wrong is to be seen, and its address to be read"
)]

#[allow(
    dead_code,
    unused_imports,
    reason = "the HTTP tests need more of it than this server"
)]
#[path = "../tests/http/support/mod.rs"]
mod support;

use support::executor::Script;
use support::{Fixture, Options};

/// Agents' prompts are long, and here every byte is a token.
const MAX_MODEL_LEN: u32 = 60_000;

#[tokio::main]
async fn main() {
    let answers: Vec<String> = std::env::args().skip(1).collect();
    let fixture = Fixture::ready(Options {
        reasoning: true,
        max_model_len: MAX_MODEL_LEN,
        ..Options::script(Script::says_in_turn(&answers))
    })
    .await;
    println!("http://{}", fixture.address);
    std::future::pending::<()>().await;
}
