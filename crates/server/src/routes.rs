//! The table of routes. What stands before all of them is in [`envelope`](crate::envelope).

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::routing::{get, post};
use backstop_protocol::anthropic::sse_anthropic_error;
use backstop_protocol::responses::sse_failure;
use backstop_protocol::{ApiError, sse_error};

use crate::envelope::{DISCARDED_OF_STRANGERS_BYTES_MAX, envelope};
use crate::paths::with_plain_path;
use crate::patience::Manner;
use crate::reply::ErrorReply;
use crate::server::Server;
use crate::{
    body, chat, completions, decisions, infill, messages, mistral_fim, ollama, openapi, probes,
    responses, sse, tokens,
};

/// Who may call a route, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, at any time: probes.
    Open,
    /// Holders of a key, at any time.
    Key,
    /// Holders of a key, once the model is ready. Not being ready comes first: a gateway takes a
    /// 401 or a 404 for a reason to stay away, a 503 for a reason to come back.
    Ready,
}

/// Paths and who may call them. Everything else is `("other", Access::Ready)`.
pub(crate) const ACCESS: [(&str, Access); 25] = [
    ("/health", Access::Open),
    ("/ready", Access::Open),
    ("/ping", Access::Open),
    ("/", Access::Key),
    ("/version", Access::Key),
    ("/metrics", Access::Key),
    ("/openapi.json", Access::Key),
    ("/v1/models", Access::Ready),
    ("/v1/chat/completions", Access::Ready),
    ("/v1/completions", Access::Ready),
    ("/v1/fim/completions", Access::Ready),
    ("/infill", Access::Ready),
    ("/v1/decisions", Access::Ready),
    ("/v1/responses", Access::Ready),
    ("/v1/messages", Access::Ready),
    ("/v1/messages/count_tokens", Access::Ready),
    ("/tokenize", Access::Ready),
    ("/detokenize", Access::Ready),
    ("/tokenizer_info", Access::Ready),
    ("/api/version", Access::Key),
    ("/api/tags", Access::Ready),
    ("/api/ps", Access::Ready),
    ("/api/show", Access::Ready),
    ("/api/chat", Access::Ready),
    ("/api/generate", Access::Ready),
];

/// Routes whose handlers read the body. Of every other request it is thrown away beforehand.
pub(crate) const WITH_BODY: [&str; 13] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/fim/completions",
    "/infill",
    "/v1/decisions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
    "/api/show",
    "/api/chat",
    "/api/generate",
];

/// How clients of a route are looked after until their answers begin; `None` if those do not take
/// long. Each of these routes has a body.
pub(crate) fn manner(label: &str) -> Option<Manner> {
    match label {
        "/v1/chat/completions"
        | "/v1/completions"
        | "/v1/fim/completions"
        | "/infill"
        | "/v1/decisions" => Some(Manner::events(sse::comment, sse_error)),
        "/v1/responses" => Some(Manner::events(sse::comment, sse_failure)),
        "/v1/messages" => Some(Manner::events(messages::ping, sse_anthropic_error)),
        "/api/chat" => Some(ollama::manner(ollama::chat_pause)),
        "/api/generate" => Some(ollama::manner(ollama::generation_pause)),
        _ => None,
    }
}

/// A path's name for metrics, of which there are finitely many, and its access.
pub(crate) fn route(path: &str) -> (&'static str, Access) {
    let known = ACCESS.into_iter().find(|(known, _)| *known == path);
    known.unwrap_or(if path.starts_with("/v1/models/") {
        ("/v1/models/{id}", Access::Ready)
    } else {
        ("other", Access::Ready)
    })
}

impl Server {
    /// All routes, for [`serve`](crate::serve) or for a server of one's own.
    pub fn router(&self) -> Router {
        let routes = Router::new()
            .merge(ollama::refused())
            .route("/api/version", get(ollama::version))
            .route("/api/tags", get(ollama::tags))
            .route("/api/ps", get(ollama::running))
            .route("/api/show", post(ollama::show))
            .route("/api/chat", post(ollama::chat))
            .route("/api/generate", post(ollama::generate))
            .route("/v1/chat/completions", post(chat::handle))
            .route("/v1/completions", post(completions::handle))
            .route("/v1/fim/completions", post(mistral_fim::handle))
            .route("/infill", post(infill::handle))
            .route("/v1/decisions", post(decisions::handle))
            .route("/v1/responses", post(responses::handle))
            .route("/v1/messages", post(messages::handle))
            .route("/v1/messages/count_tokens", post(messages::count_tokens))
            .route("/tokenize", post(tokens::tokenize))
            .route("/detokenize", post(tokens::detokenize))
            .route("/tokenizer_info", get(tokens::info))
            .route("/v1/models", get(probes::models))
            .route("/v1/models/{*id}", get(probes::model))
            .route("/health", get(probes::health))
            .route("/ping", get(probes::health).post(probes::health))
            .route("/ready", get(probes::ready))
            .route("/version", get(probes::version))
            .route("/metrics", get(probes::metrics))
            .route("/openapi.json", get(openapi::handle))
            .route("/", get(probes::root));
        self.enveloped(routes)
    }

    /// The routes that say whether the server is well, and no others.
    pub(crate) fn probe_router(&self) -> Router {
        let routes = Router::new()
            .route("/health", get(probes::health))
            .route("/ping", get(probes::health).post(probes::health))
            .route("/ready", get(probes::ready));
        self.enveloped(routes)
    }

    /// Puts before routes what stands before all of them.
    fn enveloped(&self, routes: Router<Self>) -> Router {
        let routes = routes
            .fallback(async || ErrorReply(ApiError::route_not_found()))
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn_with_state(self.clone(), envelope))
            .with_state(self.clone());
        // Layers of a router come after it has chosen a route, so that the path has to be changed
        // around it.
        Router::new()
            .fallback_service(routes)
            .layer(middleware::map_request(with_plain_path))
    }
}

async fn method_not_allowed(request: Request) -> ErrorReply {
    body::discard(request, DISCARDED_OF_STRANGERS_BYTES_MAX).await;
    ErrorReply(ApiError::method_not_allowed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routes_with_bodies_look_after_their_clients() {
        for path in WITH_BODY {
            assert_eq!(route(path), (path, Access::Ready));
        }
        for (path, _) in ACCESS {
            assert!(
                manner(path).is_none() || WITH_BODY.contains(&path),
                "{path}"
            );
        }
    }

    #[test]
    fn unknown_paths_share_one_label() {
        assert_eq!(route("/health"), ("/health", Access::Open));
        assert_eq!(route("/v1/models/a/b").0, "/v1/models/{id}");
        assert_eq!(route("/whatever"), ("other", Access::Ready));
    }
}
