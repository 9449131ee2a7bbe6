//! The page for the people who look after a server: `GET /` from a browser.
//!
//! It is one document without data, so anybody may have it; its script asks for `/backstop/status` with the key that
//! its user types. Nothing is loaded from elsewhere, and a browser is told to run and to ask nothing but that.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

const DOCUMENT: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = concat!(
    "\"use strict\";\n",
    include_str!("page/elements.js"),
    include_str!("page/chart.js"),
    include_str!("page/prompt.js"),
    include_str!("page/page.js"),
);

/// The media type of pages.
const HTML: &str = "text/html";

/// The page of a server without keys, and of one with.
static PAGES: LazyLock<[String; 2]> = LazyLock::new(|| {
    ["none", "needed"].map(|keys| {
        DOCUMENT
            .replace("{keys}", keys)
            .replace("{style}", STYLE)
            .replace("{script}", SCRIPT)
    })
});

static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
        source_hash(SCRIPT),
        source_hash(STYLE),
    );
    // It is visible ASCII; if it were not, nothing at all would be allowed.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// What a Content-Security-Policy calls a text that stands in the document.
fn source_hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// Whether these are the headers of a browser that wants something to show. Programs accept anything or JSON.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter();
    let mut ranges = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    ranges.any(|range| {
        let kind = range.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case(HTML)
    })
}

/// The page, which asks for a key at once if it `needs_key`.
pub(crate) fn answer(needs_key: bool) -> Response {
    let mut response = Response::new(Body::from(PAGES[usize::from(needs_key)].as_str()));
    let fixed = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        // It changes with the program, and is small.
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(values: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, HeaderValue::from_static(value));
        }
        is_wanted(&headers)
    }

    #[test]
    fn browsers_get_the_page_and_programs_do_not() {
        assert!(accepting(&[
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
        ]));
        assert!(accepting(&["application/json", "TEXT/HTML;q=0.5"]));
        assert!(!accepting(&[]));
        assert!(!accepting(&["*/*"]));
        assert!(!accepting(&["application/json, text/plain, */*"]));
    }

    #[test]
    fn the_document_holds_what_its_policy_allows_and_asks_for_nothing_else() {
        let [page, _] = PAGES.each_ref();
        assert!(page.contains(STYLE) && page.contains(SCRIPT));
        let policy = POLICY.to_str().unwrap();
        assert!(policy.contains(&source_hash(SCRIPT)) && policy.contains("connect-src 'self'"));
        // The namespace of vector graphics is a name, not an address.
        let namespace = "http://www.w3.org/2000/svg";
        assert!(!page.replace(namespace, "").contains("://"));
        // A policy of hashes forbids these.
        assert!(!page.contains(" style=\"") && !page.contains("innerHTML"));
    }
}
