//! Brings paths into one form, before anything is decided by them: who may call, what is counted,
//! and which route it is.

use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// The same path, with one slash wherever there are several, and none at its end: clients put
/// together addresses from parts that bring slashes of their own.
fn plain_path(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        plain.push('/');
        plain.push_str(part);
    }
    match plain.is_empty() {
        true => "/".to_owned(),
        false => plain,
    }
}

/// The same request, for its plain path.
pub(crate) async fn with_plain_path(mut request: Request) -> Request {
    let path = request.uri().path();
    // What does not begin with a slash is no path: `OPTIONS *` is about the server.
    if !path.starts_with('/') || (!path.contains("//") && (path == "/" || !path.ends_with('/'))) {
        return request;
    }
    let mut plain = plain_path(path);
    if let Some(query) = request.uri().query() {
        plain.push('?');
        plain.push_str(query);
    }
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(plain).ok();
    // Cannot fail, for a part of a valid path is valid; if it did, there would be no such route.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_what_joining_them_left_behind() {
        let plain = [
            ("/", "/"),
            ("///", "/"),
            ("//health", "/health"),
            ("/health/", "/health"),
            ("//v1//chat/completions//", "/v1/chat/completions"),
            ("/v1/models/a//b/", "/v1/models/a/b"),
            // What is a path within a path stays one.
            ("/v1/models/a%2F%2Fb", "/v1/models/a%2F%2Fb"),
            ("/v1/./x", "/v1/./x"),
        ];
        for (path, expected) in plain {
            assert_eq!(plain_path(path), expected);
        }
    }

    #[tokio::test]
    async fn queries_survive_and_other_targets_are_left_alone() {
        let targets = [
            ("//v1//models/?a=//b/", "/v1/models?a=//b/"),
            ("http://host//ping/", "http://host/ping"),
            ("*", "*"),
            ("/ping?/", "/ping?/"),
        ];
        for (target, expected) in targets {
            let mut request = Request::new(axum::body::Body::empty());
            *request.uri_mut() = target.parse().unwrap();
            let request = with_plain_path(request).await;
            assert_eq!(request.uri().to_string(), expected);
        }
    }
}
