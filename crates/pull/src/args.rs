//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// The most threads that fetch: more connections than this are no faster, and unkind to the hub.
const WORKERS_MAX: u16 = 64;

const EXAMPLES: &str = "\
Examples:
  A model that Backstop knows, at its pinned revision:
    backstop-pull north-mini-code-fp8
  Any repository with safetensors:
    backstop-pull Qwen/Qwen2.5-Coder-7B-Instruct
  One quantisation of a repository of GGUF files:
    backstop-pull bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M
  For a machine without network, to be copied into its store:
    backstop-pull ORG/REPO@COMMIT --to /media/stick

A pull that was interrupted goes on where it was when it is started again.

Environment:
  HF_TOKEN                           for gated and private repositories; or the token file of `hf auth login`
  HF_ENDPOINT                        a mirror
  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY
  SSL_CERT_FILE, REQUESTS_CA_BUNDLE  certificates of a private authority
  BACKSTOP_MODELS_DIR                the store";

/// Fetches a model from a Hugging Face hub into the store, from which `backstop serve` loads it.
///
/// Only what serving needs is fetched, from one commit, and each file is checked against the hub's digest. This program
/// is the only one of Backstop's that goes to the internet.
#[derive(Debug, Parser)]
#[command(name = "backstop-pull", version, after_help = EXAMPLES)]
pub struct CommandLine {
    /// A name that Backstop knows, or ORG/REPO, ORG/REPO@REVISION, or ORG/REPO:QUANTISATION of GGUF files.
    pub model: String,
    /// What to call it here; by default the known name, or the repository's last part.
    #[arg(long)]
    pub name: Option<String>,
    /// Directory to put it into, with its manifest, instead of the store.
    #[arg(long, value_name = "DIRECTORY")]
    pub to: Option<PathBuf>,
    /// Branch, tag or commit; by default the one that is pinned for a known name, or else `main`.
    #[arg(long)]
    pub revision: Option<String>,
    /// Parts that are fetched at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=i64::from(WORKERS_MAX)))]
    pub max_workers: u16,
    /// Say what would be fetched, and fetch nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Address of the hub, or of a mirror; by default HF_ENDPOINT, or else huggingface.co.
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Certificates (PEM) of the authorities to trust, instead of the built-in ones.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
