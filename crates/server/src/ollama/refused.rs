//! Routes of Ollama's API that are known and not served: each says why.

use axum::Router;
use axum::routing::any;
use backstop_protocol::ApiError;

use crate::reply::ErrorReply;
use crate::server::Server;

const NO_CONNECTION: &str = "this server makes no outbound connection";
const ONE_MODEL: &str = "this server serves the model that it was started with, and no client \
                         changes that";
const NO_EMBEDDINGS: &str = "this API does not support embeddings here, as /v1/embeddings does where \
                             a model for them is served";

/// A route that is known and not served.
#[derive(Clone, Copy, Debug)]
pub struct RefusedRoute {
    /// Its path, with names for what varies.
    pub path: &'static str,
    /// What the error says of it.
    pub reason: &'static str,
}

/// All of them.
pub const REFUSED_ROUTES: [RefusedRoute; 8] = [
    refusal("/api/pull", NO_CONNECTION),
    refusal("/api/push", NO_CONNECTION),
    refusal("/api/create", ONE_MODEL),
    refusal("/api/copy", ONE_MODEL),
    refusal("/api/delete", ONE_MODEL),
    refusal("/api/blobs/{digest}", ONE_MODEL),
    refusal("/api/embed", NO_EMBEDDINGS),
    refusal("/api/embeddings", NO_EMBEDDINGS),
];

const fn refusal(path: &'static str, reason: &'static str) -> RefusedRoute {
    RefusedRoute { path, reason }
}

/// Refuses them, whatever the method.
pub(crate) fn refused() -> Router<Server> {
    let routes = REFUSED_ROUTES.into_iter();
    routes.fold(Router::new(), |router, RefusedRoute { path, reason }| {
        let refuse = move || async move { ErrorReply(ApiError::unsupported_route(reason)) };
        router.route(path, any(refuse))
    })
}
