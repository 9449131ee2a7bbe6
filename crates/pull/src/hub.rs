//! Requests to a hub: where its files are, redirects, and what its refusals mean.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::error::PullError;
use crate::names::{escaped, shown};
use crate::patience::{Again, Failure, Failures, Patience};
use crate::redirects::Address;
use crate::settings::{Settings, Token};

const REDIRECTS_MAX: usize = 10;
/// So much of an answer that is not wanted is read so that its connection can be used again.
const UNWANTED_BYTES_MAX: u64 = 64 << 10;
/// Requests before there is any sign that the address is right.
const FIRST_ATTEMPTS: u32 = 4;
const USER_AGENT: &str = concat!("backstop-pull/", env!("CARGO_PKG_VERSION"));

/// One repository of a hub.
pub(crate) struct Hub {
    agent: Agent,
    endpoint: Address,
    repository: String,
    token: Option<Token>,
    pub(crate) patience: Patience,
}

impl Hub {
    pub(crate) fn new(settings: &Settings, repository: &str, connections: usize) -> Self {
        let patience = settings.patience;
        let mut tls = TlsConfig::builder();
        if let Some(authorities) = &settings.authorities {
            tls = tls.root_certs(RootCerts::Specific(Arc::new(authorities.clone())));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .proxy(settings.proxy.clone())
            .user_agent(USER_AGENT)
            // hf-hub switches packing on; what is packed has no ranges and no length.
            .accept_encoding("identity")
            .http_status_as_error(false)
            // Redirects are followed here, where tokens stay with the hub.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(2 * connections)
            .max_idle_connections_per_host(connections)
            .timeout_connect(Some(patience.connect))
            .timeout_resolve(Some(patience.connect))
            .timeout_per_read(Some(patience.silence))
            .timeout_per_write(Some(patience.silence))
            .timeout_recv_response(Some(patience.silence))
            .timeout_global(Some(patience.request))
            .build();
        Self {
            agent: config.into(),
            endpoint: settings.endpoint.clone(),
            repository: repository.to_owned(),
            token: settings.token.clone(),
            patience,
        }
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(
            self.repository.clone(),
            RepoType::Model,
            revision.to_owned(),
        )
    }

    /// Where the hub says what a revision holds.
    pub(crate) fn listing_url(&self, revision: &str) -> String {
        let path = self.repo(revision).api_url();
        format!("{}/api/{path}?blobs=true", self.endpoint.text())
    }

    /// Where the files of a commit are.
    pub(crate) fn files(&self, commit: &str) -> Result<Files, PullError> {
        // Neither its cache nor its token is used, but it panics if it has to look for them without a home.
        let api = ApiBuilder::from_cache(Cache::new(std::env::temp_dir().join("unused/hub")))
            .with_endpoint(self.endpoint.text())
            .with_token(None)
            .build();
        let api = api.map_err(|error| PullError::new(format!("hf-hub: {error}")))?;
        Ok(Files(api.repo(self.repo(commit))))
    }

    /// The page on which a person sees the repository.
    fn page(&self) -> String {
        self.endpoint.page(&self.repository)
    }

    /// Asks once, for all of something or for a range of it; redirects are followed.
    pub(crate) fn get(&self, url: &str, range: Option<&str>) -> Result<Response<Body>, Failure> {
        let unusable = || Failure::never("the hub's files have no usable addresses");
        let mut address = Address::parse(url).ok_or_else(unusable)?;
        for _ in 0..=REDIRECTS_MAX {
            let mut response = self.ask(&address, range)?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let Some(location) = location(&response) else {
                return Err(self.refusal(&address, &mut response));
            };
            let next = address.redirected(&location).map_err(|reason| {
                Failure::never(format!("{} redirects {reason}", address.shown()))
            })?;
            let mut unwanted = response.body_mut().as_reader().take(UNWANTED_BYTES_MAX);
            // Whether it can be read or not, the answer was the redirect.
            let _ignored = std::io::copy(&mut unwanted, &mut std::io::sink());
            address = next;
        }
        Err(Failure::never(format!(
            "more than {REDIRECTS_MAX} redirects, the last to {}",
            address.shown()
        )))
    }

    fn ask(&self, address: &Address, range: Option<&str>) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(address.uri().clone());
        if let Some(token) = &self.token
            && address.is_same_server(&self.endpoint)
        {
            request = request.header("authorization", token.authorization());
        }
        if let Some(range) = range {
            request = request.header("range", range);
        }
        request.call().map_err(|error| unanswered(address, &error))
    }

    /// All of a small answer, with patience.
    pub(crate) fn read_small(&self, url: &str, bytes_max: u64) -> Result<Vec<u8>, PullError> {
        let patience = Patience {
            attempts: self.patience.attempts.min(FIRST_ATTEMPTS),
            ..self.patience
        };
        let mut failures = Failures::new(&patience);
        loop {
            match self.read_once(url, bytes_max) {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => match failures.wait(failure.again) {
                    Some(wait) => {
                        tracing::warn!("{}; again in {} s", failure.reason, wait.as_secs());
                        std::thread::sleep(wait);
                    }
                    None => return Err(PullError::new(failure.reason)),
                },
            }
        }
    }

    fn read_once(&self, url: &str, bytes_max: u64) -> Result<Vec<u8>, Failure> {
        let mut response = self.get(url, None)?;
        let mut bytes = Vec::new();
        let mut body = response.body_mut().as_reader().take(bytes_max + 1);
        body.read_to_end(&mut bytes)
            .map_err(|error| Failure::soon(format!("the hub's answer was cut off: {error}")))?;
        match bytes.len() as u64 > bytes_max {
            true => Err(Failure::never(format!(
                "the hub's answer is longer than {bytes_max} bytes"
            ))),
            false => Ok(bytes),
        }
    }

    /// What an answer that is neither success nor redirect means.
    fn refusal(&self, address: &Address, response: &mut Response<Body>) -> Failure {
        let status = response.status();
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let code = header("x-error-code").unwrap_or_default();
        let host = address.shown();
        let is_elsewhere = !address.is_same_server(&self.endpoint);
        match (status.as_u16(), code) {
            // What a signed address permits ends after a while; the hub signs another.
            (401 | 403, _) if is_elsewhere => Failure::soon(format!("{host} answered {status}")),
            (401 | 403 | 404, "RepoNotFound") => Failure::never(self.no_repository()),
            (404, "RevisionNotFound") => Failure::never(format!(
                "{} has no such revision: see {}/commits/main",
                self.repository,
                self.page()
            )),
            (404, "EntryNotFound") => Failure::never(format!(
                "{} has no such file in this commit, though it listed it ({})",
                self.repository,
                shown(address.uri().path())
            )),
            (404, _) => Failure::never(format!(
                "{host} knows no such repository, revision or file: {}",
                shown(address.uri().path())
            )),
            (401 | 403, code) => Failure::never(self.not_permitted(status, code == "GatedRepo")),
            (429, _) => Failure {
                reason: format!("{host} asks for fewer requests ({status})"),
                again: asked_wait(header("retry-after")),
            },
            (408 | 500..=599, _) => Failure {
                reason: format!("{host} answered {status}"),
                again: asked_wait(header("retry-after")),
            },
            _ => Failure::never(format!(
                "{host} answered {status}, which makes no sense here"
            )),
        }
    }

    fn no_repository(&self) -> String {
        let host = self.endpoint.shown();
        match self.token {
            Some(_) => format!(
                "{host} has no model repository {} that this token may see",
                self.repository
            ),
            None => format!(
                "{host} has no model repository {}, or it is private: then set HF_TOKEN",
                self.repository
            ),
        }
    }

    fn not_permitted(&self, status: StatusCode, is_gated: bool) -> String {
        let (page, repository) = (self.page(), &self.repository);
        match (&self.token, is_gated) {
            (None, true) => format!(
                "{repository} is not for everybody ({status}): accept its licence at {page}, and set HF_TOKEN to a \
                 token of your account"
            ),
            // The hub does not say of what is private whether it is there.
            (None, false) => format!(
                "{repository} is not there, or not for everybody ({status}): check its name; if it is gated, accept \
                 its licence at {page}; and set HF_TOKEN to a token of your account"
            ),
            (Some(_), _) => format!(
                "this token does not permit to read {repository} ({status}): accept its licence at {page} with the \
                 same account, or use a token that may read it"
            ),
        }
    }
}

/// Where the files of one commit are.
pub(crate) struct Files(ApiRepo);

impl Files {
    pub(crate) fn url(&self, name: &str) -> String {
        self.0.url(&escaped(name))
    }
}

fn location(response: &Response<Body>) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get("location")?;
    location.to_str().ok().map(str::to_owned)
}

fn asked_wait(header: Option<&str>) -> Again {
    let seconds = header.and_then(|value| value.trim().parse().ok());
    seconds.map_or(Again::Soon, |seconds| {
        Again::After(Duration::from_secs(seconds))
    })
}

/// Why there was no answer at all.
fn unanswered(address: &Address, error: &ureq::Error) -> Failure {
    let host = address.shown();
    match error {
        ureq::Error::Io(reason) if reason.kind() == std::io::ErrorKind::InvalidData => {
            untrusted(&host, reason)
        }
        ureq::Error::Rustls(reason) => untrusted(&host, reason),
        ureq::Error::Tls(reason) => untrusted(&host, reason),
        ureq::Error::Timeout(_) => Failure::soon(format!("{host} does not answer in time")),
        ureq::Error::HostNotFound => {
            Failure::soon(format!("there is no host {host}, or no network"))
        }
        // Its text may hold the address, and that a password.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            Failure::never(format!("{host} has no usable address"))
        }
        error => Failure::soon(format!("{host} cannot be asked: {error}")),
    }
}

fn untrusted(host: &str, reason: &dyn std::fmt::Display) -> Failure {
    Failure::never(format!(
        "no trusted connection to {host}: {reason}; if your network has a certificate authority of its own, name its \
         certificates with --ca-file"
    ))
}
