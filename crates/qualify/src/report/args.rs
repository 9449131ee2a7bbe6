//! The command line of reports.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

/// Makes, signs and verifies reports.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done with reports.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Make a report of a directory of results: a page for people, JSON for programs.
    Build(Box<BuildArgs>),
    /// Make a pair of keys to sign reports with (ECDSA on P-256).
    Keygen(KeygenArgs),
    /// Sign a report: a DSSE envelope around an in-toto statement.
    Sign(SignArgs),
    /// Check a signed report: key, digests, date of expiry.
    Verify(VerifyArgs),
}

/// What a report is made of.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// Directory of results, as `--into` has it.
    #[arg(value_name = "DIR")]
    pub results: PathBuf,
    /// Write the page there.
    #[arg(long, value_name = "FILE", required_unless_present = "json")]
    pub html: Option<PathBuf>,
    /// Write the JSON there; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// How long the report holds.
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = validity)]
    pub expires: Duration,
    /// What else belongs into it.
    #[command(flatten)]
    pub inputs: InputArgs,
    /// What it costs.
    #[command(flatten)]
    pub cost: CostArgs,
}

/// Further files and facts.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What else belongs into it")]
pub struct InputArgs {
    /// Manifest of the model, with the vendor's claims (`models/NAME.toml`).
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Results of `bench serve` (JSON).
    #[arg(long, value_name = "FILE")]
    pub bench: Vec<PathBuf>,
    /// Results of a blackout drill (`backstop drill --json FILE`).
    #[arg(long, value_name = "FILE")]
    pub drill: Option<PathBuf>,
    /// Files of the weights that are served here; their SHA-256 digests are computed and signed.
    #[arg(long, value_name = "FILE")]
    pub weights: Vec<PathBuf>,
    /// Format of the weights that are served, such as `BF16` or `Q4_K_M`.
    #[arg(long, value_name = "NAME")]
    pub weights_format: Option<String>,
    /// The server's program, whose SHA-256 digest is computed and signed.
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Where it runs and who can reach it, for the decision matrix: `own data centre, Frankfurt`.
    #[arg(long, value_name = "TEXT")]
    pub location: Option<String>,
    /// Hardware it ran on, with its driver, as far as the server does not say it itself.
    #[arg(long, value_name = "TEXT")]
    pub hardware: Option<String>,
}

/// What a machine costs, and what others charge.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What it costs")]
pub struct CostArgs {
    /// What the machine costs in an hour: with it, and with a benchmark, tokens get a price.
    #[arg(long, value_name = "NUMBER", value_parser = cost)]
    pub hourly_cost: Option<f64>,
    /// The currency of that. List prices in another one are not compared.
    #[arg(long, value_name = "CODE", default_value = "USD")]
    pub currency: String,
    /// List prices of other providers (TOML), instead of those that come along with this program.
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,
}

/// Where keys go.
#[derive(Clone, Debug, Args)]
pub struct KeygenArgs {
    /// Write the private key there (PKCS#8, PEM), readable by its owner alone, and the public key beside it, with `.pub` at its end.
    /// Neither may exist.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

/// What to sign, and with what.
#[derive(Clone, Debug, Args)]
pub struct SignArgs {
    /// The report's JSON.
    #[arg(long, value_name = "FILE")]
    pub json: PathBuf,
    /// The report's page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// The private key (PKCS#8, PEM; ECDSA on P-256).
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Write the envelope there; otherwise beside the JSON, with `.dsse` at its end.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What to check, and against what.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// The envelope.
    #[arg(value_name = "ENVELOPE")]
    pub envelope: PathBuf,
    /// The signer's public key (PEM; ECDSA on P-256 or P-384), from the signer and not from where the report is from.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Directory of the signed files; otherwise the envelope's.
    #[arg(long, value_name = "DIR")]
    pub files: Option<PathBuf>,
    /// Check the digests of these files too: weights, tokenizers, programs that the statement names.
    #[arg(long, value_name = "FILE")]
    pub also: Vec<PathBuf>,
}

fn validity(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let longest = Duration::from_secs(10 * 366 * 24 * 3600);
    if time.is_zero() || time > longest {
        return Err("expected more than 0 and at most ten years, such as 90d".into());
    }
    Ok(time)
}

fn cost(text: &str) -> Result<f64, String> {
    let cost: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if cost.is_finite() && cost > 0.0 && cost < 1e9 {
        Ok(cost)
    } else {
        Err("expected more than 0".into())
    }
}
