//! Which pages in browsers may read the answers: the CORS protocol of the Fetch standard.
//!
//! A browser asks first, in a *preflight*, whether a page may send a request with a key, or with
//! JSON. It never sends the key with that, so preflights are answered before keys are asked for.
//! Everything else is answered as ever, with what tells the browser whom it may show the answer to;
//! errors too, or else a page could not tell a wrong key from a server that is gone.

use std::collections::BTreeSet;

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use backstop_protocol::ApiError;

/// Stands for all origins, methods or headers.
const ANY: &str = "*";
/// The origin of a page that has none of its own, such as a local file.
const NO_ORIGIN: &str = "null";
/// Headers that a page may always set. Browsers ask for `Content-Type` all the same if it is JSON.
const ALWAYS_ALLOWED: [&str; 4] = [
    "accept",
    "accept-language",
    "content-language",
    "content-type",
];
/// Answer headers that a page may read beside those of every answer.
pub(crate) const EXPOSED: &str = "request-id, retry-after, x-backstop-model, \
    x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, \
    x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens, \
    x-request-id";
/// How long a browser may remember the answer to a preflight.
const MAX_AGE_S: u32 = 600;
/// What the answer to a preflight depends on.
const PREFLIGHT_VARY: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// Who may read the answers, as an operator writes it. `*` in a list stands for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsSettings {
    /// Origins of pages, as browsers write them: `https://chat.example`, with a port if it is not
    /// the usual one.
    pub allowed_origins: Vec<String>,
    /// Methods that pages may use.
    pub allowed_methods: Vec<String>,
    /// Headers that pages may set, in any case. Those of every form may always be set.
    pub allowed_headers: Vec<String>,
    /// Pages may send cookies and the like, for a proxy in between.
    pub allow_credentials: bool,
}

/// Why settings are not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorsError {
    /// Whoever may send credentials has to be named.
    #[error(
        "credentials cannot be allowed to all origins: browsers refuse it, and every page could \
         act in its visitors' names; name the origins"
    )]
    CredentialsForAll,
    /// No browser would send this origin.
    #[error(
        "{0:?} is not an origin as browsers send it: a scheme, `://` and a host in lower case, and \
         a port if it is not the scheme's own, with nothing behind it; or `*` for all"
    )]
    Origin(String),
    /// No such method or header can be.
    #[error("{0:?} cannot be the name of a method or of a header")]
    Name(String),
}

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Allowed,
    methods: Allowed,
    /// In lower case.
    headers: Allowed,
    credentials: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    Any,
    Listed(BTreeSet<String>),
}

impl Allowed {
    fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names: BTreeSet<String> = names.into_iter().collect();
        match names.contains(ANY) {
            true => Self::Any,
            false => Self::Listed(names),
        }
    }

    fn allows(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(names) => names.contains(name),
        }
    }

    /// What a browser that asked for `asked` is told. It is never told `*`, which does not stand
    /// for `Authorization`, and for nothing at all where there are credentials.
    fn tell(&self, asked: &HeaderValue) -> HeaderValue {
        match self {
            Self::Any => asked.clone(),
            Self::Listed(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                // Cannot fail, for the names were checked.
                HeaderValue::from_str(&names.join(", ")).unwrap_or(asked.clone())
            }
        }
    }
}

impl Cors {
    /// Checks settings.
    pub fn new(settings: CorsSettings) -> Result<Self, CorsError> {
        let CorsSettings {
            allowed_origins,
            allowed_methods,
            allowed_headers,
            allow_credentials,
        } = settings;
        let odd_origin = allowed_origins.iter().find(|origin| !is_origin(origin));
        if let Some(origin) = odd_origin {
            return Err(CorsError::Origin(origin.clone()));
        }
        let mut names = allowed_methods.iter().chain(&allowed_headers);
        // Names of methods and of headers are made of the same characters.
        if let Some(name) = names.find(|name| Method::from_bytes(name.as_bytes()).is_err()) {
            return Err(CorsError::Name(name.clone()));
        }
        let origins = Allowed::new(allowed_origins);
        if allow_credentials && origins == Allowed::Any {
            return Err(CorsError::CredentialsForAll);
        }
        let headers = allowed_headers.iter().map(|name| name.to_ascii_lowercase());
        Ok(Self {
            origins,
            methods: Allowed::new(allowed_methods),
            headers: Allowed::new(headers.chain(ALWAYS_ALLOWED.map(str::to_owned))),
            credentials: allow_credentials,
        })
    }

    /// Answers a preflight.
    pub(crate) fn preflight(&self, asked: &HeaderMap) -> Result<Response, ApiError> {
        let refused = |part| Err(ApiError::cross_origin_refused(part));
        let text = |name: HeaderName| asked.get(name).map(|value| value.to_str().unwrap_or(""));
        if !text(ORIGIN).is_some_and(|origin| self.origins.allows(origin)) {
            return refused("origin");
        }
        if !text(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| self.methods.allows(method)) {
            return refused("method");
        }
        let names = text(ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default();
        let names = names
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase());
        let mut names = names.filter(|name| !name.is_empty());
        if !names.all(|name| self.headers.allows(&name)) {
            return refused("headers");
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE_S));
        if let Some(method) = asked.get(ACCESS_CONTROL_REQUEST_METHOD) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.tell(method));
        }
        if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.tell(names));
        }
        headers.insert(VARY, HeaderValue::from_static(PREFLIGHT_VARY));
        Ok(response)
    }

    /// Tells the browser of a page from `origin` whether it may show it the answer.
    pub(crate) fn stamp(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let names_origin = |value: &HeaderValue| value.as_bytes().starts_with(b"Origin");
        if !headers.get_all(VARY).iter().any(names_origin) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = origin else { return };
        let allowed = match (&self.origins, origin.to_str()) {
            (Allowed::Any, _) => HeaderValue::from_static(ANY),
            (Allowed::Listed(names), Ok(text)) if names.contains(text) => origin.clone(),
            (Allowed::Listed(_), _) => return,
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(EXPOSED),
        );
        if self.credentials {
            let value = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, value);
        }
    }
}

/// Whether this is a browser's question whether a page may send a request.
pub(crate) fn is_preflight(request: &Request) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether a browser could send this as an origin, or it stands for all of them.
fn is_origin(text: &str) -> bool {
    if text == ANY || text == NO_ORIGIN {
        return true;
    }
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let usual_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let parsed: Result<Uri, _> = text.parse();
    let whole = parsed.is_ok_and(|uri| uri.authority().is_some_and(|it| it == authority));
    let lower = !text.chars().any(|c| c.is_ascii_uppercase());
    let has_usual_port = !usual_port.is_empty() && authority.ends_with(usual_port);
    whole && lower && !has_usual_port && !authority.contains('@')
}

#[cfg(test)]
mod tests;
