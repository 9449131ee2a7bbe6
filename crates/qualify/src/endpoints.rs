//! Two servers on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::args::{EndpointArgs, time};

/// The two, and how patiently they are asked.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Servers")]
pub struct PairArgs {
    /// Address of the first server, which is measured against.
    #[arg(long, value_name = "URL")]
    pub url_a: String,
    /// Model to ask the first for.
    #[arg(long, value_name = "NAME")]
    pub model_a: String,
    /// File with the key that the first wants.
    #[arg(long, value_name = "FILE")]
    pub api_key_file_a: Option<PathBuf>,
    /// Address of the second server, the one in question.
    #[arg(long, value_name = "URL")]
    pub url_b: String,
    /// Model to ask the second for.
    #[arg(long, value_name = "NAME")]
    pub model_b: String,
    /// File with the key that the second wants.
    #[arg(long, value_name = "FILE")]
    pub api_key_file_b: Option<PathBuf>,
    /// Certificates (PEM) of the authorities to trust, instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Requests under way at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// How long to wait for the end of an answer.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    pub request_timeout: Duration,
    /// How often a request is sent again after a failed connection, a 429 or a 503.
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub retries: u32,
}

impl PairArgs {
    /// Each as if it were alone.
    pub(crate) fn each(&self) -> [EndpointArgs; 2] {
        let one = |url: &str, model: &str, key_file: &Option<PathBuf>| EndpointArgs {
            url: Some(url.to_owned()),
            model: Some(model.to_owned()),
            api_key_file: key_file.clone(),
            ca_file: self.ca_file.clone(),
            concurrency: self.concurrency,
            request_timeout: self.request_timeout,
            retries: self.retries,
            stream: true,
        };
        [
            one(&self.url_a, &self.model_a, &self.api_key_file_a),
            one(&self.url_b, &self.model_b, &self.api_key_file_b),
        ]
    }
}
