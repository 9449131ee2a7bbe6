//! Whom the benchmark asks.

use std::time::Duration;

use backstop_client::{Endpoint, Limits, get};
use serde_json::Value;

use super::args::ServerArgs;
use crate::QualifyError;
use crate::args::EndpointArgs;
use crate::record::Subject;
use crate::subject;

const LIMITS: Limits = Limits {
    patience: Duration::from_secs(60),
    bytes_max: 4 << 20,
};

/// An address to ask, with at most so many connections at rest, and what is there.
pub(super) async fn meet(
    args: &ServerArgs,
    connections_max: usize,
) -> Result<(Endpoint, Subject), QualifyError> {
    let mut asked = EndpointArgs {
        url: Some(args.url.clone()),
        model: args.model.clone(),
        api_key_file: args.api_key_file.clone(),
        ca_file: args.ca_file.clone(),
        concurrency: 1,
        request_timeout: args.request_timeout,
        retries: 0,
        stream: true,
    };
    let endpoint = subject::endpoint(&asked)?;
    if asked.model.is_none() {
        asked.model = Some(first_model(&endpoint, &args.url).await?);
    }
    let subject = subject::meet(&endpoint, &asked).await?;
    Ok((endpoint.keeping(connections_max), subject))
}

async fn first_model(endpoint: &Endpoint, url: &str) -> Result<String, QualifyError> {
    let refuse = |reason: &str| {
        QualifyError::new(format!(
            "{url} has no model to ask for ({reason}); --model names one"
        ))
    };
    let (status, _, body) = get(endpoint, "/v1/models", LIMITS)
        .await
        .map_err(|error| refuse(&error))?;
    if status != 200 {
        return Err(refuse(&format!("/v1/models says {status}")));
    }
    let list: Value = serde_json::from_slice(&body).unwrap_or_default();
    let first = list["data"][0]["id"].as_str();
    first
        .map(str::to_owned)
        .ok_or_else(|| refuse("it lists none"))
}

/// Whether an address is this machine's own.
pub(super) fn is_here(url: &str) -> bool {
    let behind = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = behind.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_addresses_are_known() {
        for here in [
            "http://127.0.0.1:8000",
            "http://localhost/v1",
            "http://[::1]:8",
            "http://127.0.0.2",
        ] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in [
            "http://10.0.0.1",
            "https://localhost.example",
            "http://[2001:db8::1]:80",
        ] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }
}
