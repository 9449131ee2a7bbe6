//! The command line. Every setting of `serve` can also stand in the environment and in a TOML
//! file; the command line wins over the environment, and that over the file.

mod audit;
mod bench;
mod encoders;
mod integrity;
mod listening;
mod log;
mod model;
mod models;
mod serve;
mod standby;
mod tls;
mod tools;
mod traces;

use clap::{Parser, Subcommand};

pub(crate) use self::audit::{AuditArgs, AuditCommand, AuditHeadArgs, AuditVerifyArgs};
pub(crate) use self::bench::{BenchCommand, OfflineArgs, QualifyArgs};
pub(crate) use self::encoders::EncoderArgs;
pub(crate) use self::integrity::{IntegrityArgs, SignatureArgs};
pub(crate) use self::log::{LogArgs, LogFormat};
pub(crate) use self::model::{CandleChoice, DeviceChoice, KvCacheDtype, LoadFormat, ModelArgs};
pub(crate) use self::models::{
    ImportArgs, ListArgs, ModelsCommand, PullArgs, RemoveArgs, ShowArgs, VerifyArgs,
};
pub(crate) use self::serve::{CallerArgs, ProfileChoice, QueueArgs, ServeArgs};
pub(crate) use self::standby::{ControlArgs, ReloadArgs, SleepArgs, StatusArgs};
pub(crate) use self::tools::{
    CanaryArgs, CompareArgs, DoctorArgs, DocumentsArgs, DrillArgs, GenerateArgs, KeyArgs,
};
pub(crate) use self::traces::TraceExporterArgs;

/// The last link in an LLM gateway's fallback chain: serves open-weight models from local disk
/// over the APIs of OpenAI, Anthropic and Ollama, without any outbound connection.
#[derive(Debug, Parser)]
#[command(name = "backstop", version, propagate_version = true)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load a model and answer the APIs of OpenAI, Anthropic and Ollama.
    Serve(Box<ServeArgs>),
    /// Say how a running server is; fails unless it is ready.
    Status(StatusArgs),
    /// Let a running server give its memory back until it is woken.
    Sleep(SleepArgs),
    /// Wake a server that sleeps, and let the model prove itself.
    Wake(ControlArgs),
    /// End a running server once its requests have ended, and wait for that.
    Drain(ControlArgs),
    /// Let a running server read its keys and certificates again, and its weights if asked.
    Reload(ReloadArgs),
    /// Answer one prompt in the terminal.
    Generate(Box<GenerateArgs>),
    /// Fetch a model from the Hugging Face hub: the only command that goes to the internet, and a program of its own.
    Pull(PullArgs),
    /// Take a model that was carried here, or lies in a Hugging Face cache, into the store.
    Import(ImportArgs),
    /// Models that are known, and those that are here.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Rehearse the loss of the primary provider against your own gateway: a program of its own, as `pull` is.
    Drill(DrillArgs),
    /// Measure speed: of a server under load, or of a model by itself.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Re-run what a vendor claims of a model against a server, or compare two: a program of its own.
    Qualify(QualifyArgs),
    /// Make, sign and verify the report of a qualification: the same program.
    Report(QualifyArgs),
    /// Say what this machine can run, and why not.
    Doctor(DoctorArgs),
    /// Compute a model on two devices, and compare what they say of the same tokens.
    Compare(Box<CompareArgs>),
    /// Record the answer that every later start of `serve` must reproduce: prints the `[canary]`
    /// section of a manifest.
    Canary(Box<CanaryArgs>),
    /// Make a new API key: prints it, once, and the line for the key file, which does not hold it.
    Key(KeyArgs),
    /// Read the audit log of a server.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Try grammars for a server, which starts this by itself.
    #[command(hide = true)]
    GrammarWorker,
    /// Carry traces for a server, which starts this by itself.
    #[command(hide = true)]
    TraceExporter(TraceExporterArgs),
    /// Write the pages of the manual that list what the program knows.
    #[command(hide = true)]
    Documents(DocumentsArgs),
}

/// The settings of `serve` with these arguments.
#[cfg(test)]
pub(crate) fn serve_args(line: &[&str]) -> ServeArgs {
    match CommandLine::parse_from(["backstop", "serve"].iter().chain(line)).command {
        Command::Serve(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn devices_are_named_as_elsewhere() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
            ("candle", DeviceChoice::Candle(CandleChoice::Cpu)),
            ("metal", DeviceChoice::Candle(CandleChoice::Metal)),
            ("candle-cuda:1", DeviceChoice::Candle(CandleChoice::Cuda(1))),
        ] {
            assert_eq!(text.parse(), Ok(choice));
        }
        for text in ["gpu", "cuda:", "cuda:-1", "CUDA", "candle-cuda:", ""] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
