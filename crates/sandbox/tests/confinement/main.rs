//! What a confined process can do and what it cannot. Confinement is for ever, and of files it
//! must come before there are threads, so each test is a process of its own: this program once more,
//! which begins as the test that a variable names.

#![allow(
    clippy::unwrap_used,
    reason = "these are tests, which only Cargo knows"
)]

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod connections;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod process;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let tests: Vec<process::Test> = [files::TESTS, connections::TESTS, calls::TESTS].concat();
    let steps: Vec<process::Test> = [files::STEPS, calls::STEPS].concat();
    process::main(&tests, &steps)
}

#[cfg(not(target_os = "linux"))]
fn main() {}
