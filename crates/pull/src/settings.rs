//! Which hub, as whom, and how it is reached: from the command line and the environment.

use std::fmt;
use std::path::{Path, PathBuf};

use backstop_input::read_file;
use hf_hub::Cache;
use ureq::Proxy;
use ureq::tls::{Certificate, PemItem, parse_pem};

use crate::args::CommandLine;
use crate::error::PullError;
use crate::patience::Patience;
use crate::redirects::Address;

const PUBLIC_ENDPOINT: &str = "https://huggingface.co";
/// Bundles of all public authorities are a quarter of a megabyte.
const CERTIFICATES_BYTES_MAX: u64 = 16 << 20;
/// Large enough that requests cost nothing, small enough that little is lost with one.
const PART_BYTES: u64 = 32 << 20;
const PROXY_VARIABLES: &[&str] = &["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"];

/// Which hub, as whom, and how it is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) endpoint: Address,
    pub(crate) token: Option<Token>,
    pub(crate) proxy: Option<Proxy>,
    /// Instead of the built-in ones.
    pub(crate) authorities: Option<Vec<Certificate<'static>>>,
    /// How long to wait, and how often to ask again.
    pub patience: Patience,
    /// Bytes that are asked for at once.
    pub part_bytes: u64,
}

/// What says who asks. Never shown.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    fn new(text: &str) -> Result<Self, PullError> {
        match text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text.to_owned())),
            false => Err(PullError::new(
                "the hub's token (HF_TOKEN or the token file) has characters that no token has: copy it again",
            )),
        }
    }

    /// The header that holds it.
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

impl Settings {
    /// From the command line and the environment, of which the command line wins.
    pub fn new(command_line: &CommandLine) -> Result<Self, PullError> {
        let endpoint = command_line.endpoint.clone();
        let endpoint = endpoint.or_else(|| variable("HF_ENDPOINT"));
        let certificates = command_line.ca_file.clone();
        let certificates = certificates
            .or_else(|| variable("SSL_CERT_FILE").map(PathBuf::from))
            .or_else(|| variable("REQUESTS_CA_BUNDLE").map(PathBuf::from));
        let mut settings = Self::of_endpoint(endpoint.as_deref().unwrap_or(PUBLIC_ENDPOINT))?;
        settings.token = token()?;
        settings.proxy = proxy()?;
        match certificates {
            Some(path) => settings.with_authorities(&path),
            None => Ok(settings),
        }
    }

    /// Of a hub that is asked directly and as nobody.
    pub fn of_endpoint(endpoint: &str) -> Result<Self, PullError> {
        let trimmed = endpoint.trim_end_matches('/');
        let address = Address::parse(trimmed).filter(|address| !address.has_query());
        let endpoint = address.ok_or_else(|| {
            // It may hold a password.
            PullError::new(
                "the hub's address (--endpoint or HF_ENDPOINT) is not like https://huggingface.co",
            )
        })?;
        Ok(Self {
            endpoint,
            token: None,
            proxy: None,
            authorities: None,
            patience: Patience::default(),
            part_bytes: PART_BYTES,
        })
    }

    /// The same, trusting these certificates (PEM) instead of the built-in ones.
    pub fn with_authorities(mut self, path: &Path) -> Result<Self, PullError> {
        self.authorities = Some(authorities(path)?);
        Ok(self)
    }

    /// The same, with a token.
    pub fn with_token(mut self, token: &str) -> Result<Self, PullError> {
        self.token = Some(Token::new(token)?);
        Ok(self)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The token of the environment, or else of the file that `hf auth login` writes.
fn token() -> Result<Option<Token>, PullError> {
    let named = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
    // hf-hub panics where it cannot tell the home directory.
    let has_home = std::env::var_os("HF_HOME").is_some() || variable("HOME").is_some();
    let in_file = || has_home.then(|| Cache::from_env().token()).flatten();
    let found = named.or_else(in_file);
    found.map(|text| Token::new(text.trim())).transpose()
}

/// The proxy of the environment. One that cannot be understood is not left out in silence.
fn proxy() -> Result<Option<Proxy>, PullError> {
    let found = Proxy::try_from_env();
    let is_set = |name: &&&str| {
        variable(name)
            .or_else(|| variable(&name.to_lowercase()))
            .is_some()
    };
    match (found, PROXY_VARIABLES.iter().find(is_set)) {
        (None, Some(name)) => Err(PullError::new(format!(
            "{name} is not an address of a proxy, such as http://proxy.example.org:3128"
        ))),
        (found, _) => Ok(found),
    }
}

fn authorities(path: &Path) -> Result<Vec<Certificate<'static>>, PullError> {
    let text = read_file(path, CERTIFICATES_BYTES_MAX);
    let text = text.map_err(|error| PullError::at(path, error))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        let item = item.map_err(|error| PullError::at(path, format!("not PEM: {error}")))?;
        if let PemItem::Certificate(certificate) = item {
            certificates.push(certificate);
        }
    }
    match certificates.is_empty() {
        true => Err(PullError::at(
            path,
            "it holds no certificate (-----BEGIN CERTIFICATE-----)",
        )),
        false => Ok(certificates),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_tokens_are_checked_and_tokens_are_not_shown() {
        for endpoint in [
            "",
            "huggingface.co",
            "ftp://x",
            "https://",
            "https://x/?a=b",
        ] {
            assert!(Settings::of_endpoint(endpoint).is_err(), "{endpoint}");
        }
        let settings = Settings::of_endpoint("http://mirror.example.org:8080/hub/").unwrap();
        assert_eq!(
            settings.endpoint.text(),
            "http://mirror.example.org:8080/hub"
        );
        let settings = settings.with_token("hf_secret").unwrap();
        assert!(!format!("{settings:?}").contains("secret"));
        assert!(settings.with_token("hf\r\nX: y").is_err());
    }
}
