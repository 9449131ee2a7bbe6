//! Routes of Ollama's API that are known and not served: each says why.

use axum::Router;
use axum::routing::any;
use backstop_protocol::ApiError;

use crate::reply::ErrorReply;
use crate::server::Server;

const NO_CONNECTION: &str = "this server makes no outbound connection";
const ONE_MODEL: &str = "this server serves the model that it was started with, and no client \
                         changes that";
const NO_EMBEDDINGS: &str = "this model does not support embeddings";

/// The routes, and why they are refused.
const REFUSED: [(&str, &str); 8] = [
    ("/api/pull", NO_CONNECTION),
    ("/api/push", NO_CONNECTION),
    ("/api/create", ONE_MODEL),
    ("/api/copy", ONE_MODEL),
    ("/api/delete", ONE_MODEL),
    ("/api/blobs/{digest}", ONE_MODEL),
    ("/api/embed", NO_EMBEDDINGS),
    ("/api/embeddings", NO_EMBEDDINGS),
];

/// Refuses them, whatever the method.
pub(crate) fn refused() -> Router<Server> {
    let routes = REFUSED.into_iter();
    routes.fold(Router::new(), |router, (path, reason)| {
        let refuse = move || async move { ErrorReply(ApiError::unsupported_route(reason)) };
        router.route(path, any(refuse))
    })
}
