//! The table of routes. Router, access, what is read of bodies, names in metrics and the completeness of the
//! API's description follow from it. What stands before all routes is in [`envelope`](crate::envelope).

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};
use backstop_protocol::ApiError;

use self::Access::{Key, Open, Page, Ready, Scrape};
use self::BodyUse::{Discarded, Read};
use crate::chat::ChatCompletions;
use crate::completions::Completions;
use crate::config::ServerConfig;
use crate::decisions::Decisions;
use crate::embeddings::Embeddings;
use crate::envelope::{DISCARDED_OF_STRANGERS_BYTES_MAX, envelope};
use crate::infill::Infill;
use crate::journey::{encode, generate, inquire};
use crate::messages::{CountTokens, Messages};
use crate::mistral_fim::FimCompletions;
use crate::paths::with_plain_path;
use crate::reply::ErrorReply;
use crate::rerank::Rerank;
use crate::responses::Responses;
use crate::server::Server;
use crate::tokens::{Detokenize, Tokenize};
use crate::{body, ollama, openapi, page, probes, status, tokens};

const GET: MethodFilter = MethodFilter::GET;
const POST: MethodFilter = MethodFilter::POST;

/// All routes. One that is added here is served, and has to be described in `openapi.json`.
#[rustfmt::skip]
pub(crate) static ROUTES: &[Route] = &[
    route(GET,  "/",                         Page,   Discarded, |m| on(m, probes::root)),
    route(GET,  "/health",                   Open,   Discarded, |m| on(m, probes::health)),
    route(GET,  "/ping",                     Open,   Discarded, |m| on(m, probes::health)),
    route(POST, "/ping",                     Open,   Discarded, |m| on(m, probes::health)),
    route(GET,  "/ready",                    Open,   Discarded, |m| on(m, probes::ready)),
    route(GET,  "/version",                  Key,    Discarded, |m| on(m, probes::version)),
    route(GET,  "/metrics",                  Scrape, Discarded, |m| on(m, probes::metrics)),
    route(GET,  "/backstop/status",          Key,    Discarded, |m| on(m, status::handle)),
    route(GET,  "/openapi.json",             Key,    Discarded, |m| on(m, openapi::handle)),
    route(GET,  "/v1/models",                Ready,  Discarded, |m| on(m, probes::models)),
    route(GET,  "/v1/models/{id}",           Ready,  Discarded, |m| on(m, probes::model)),
    route(POST, "/v1/chat/completions",      Ready,  Read,      |m| on(m, generate::<ChatCompletions>)),
    route(POST, "/v1/completions",           Ready,  Read,      |m| on(m, generate::<Completions>)),
    route(POST, "/v1/fim/completions",       Ready,  Read,      |m| on(m, generate::<FimCompletions>)),
    route(POST, "/infill",                   Ready,  Read,      |m| on(m, generate::<Infill>)),
    route(POST, "/v1/embeddings",            Ready,  Read,      |m| on(m, encode::<Embeddings>)),
    route(POST, "/v1/rerank",                Ready,  Read,      |m| on(m, encode::<Rerank>)),
    route(POST, "/v2/rerank",                Ready,  Read,      |m| on(m, encode::<Rerank>)),
    route(POST, "/rerank",                   Ready,  Read,      |m| on(m, encode::<Rerank>)),
    route(POST, "/v1/decisions",             Ready,  Read,      |m| on(m, generate::<Decisions>)),
    route(POST, "/v1/responses",             Ready,  Read,      |m| on(m, generate::<Responses>)),
    route(POST, "/v1/messages",              Ready,  Read,      |m| on(m, generate::<Messages>)),
    route(POST, "/v1/messages/count_tokens", Ready,  Read,      |m| on(m, inquire::<CountTokens>)),
    route(POST, "/tokenize",                 Ready,  Read,      |m| on(m, inquire::<Tokenize>)),
    route(POST, "/detokenize",               Ready,  Read,      |m| on(m, inquire::<Detokenize>)),
    route(GET,  "/tokenizer_info",           Ready,  Discarded, |m| on(m, tokens::info)),
    route(GET,  "/api/version",              Key,    Discarded, |m| on(m, ollama::version)),
    route(GET,  "/api/tags",                 Ready,  Discarded, |m| on(m, ollama::tags)),
    route(GET,  "/api/ps",                   Ready,  Discarded, |m| on(m, ollama::running)),
    route(POST, "/api/show",                 Ready,  Read,      |m| on(m, inquire::<ollama::Show>)),
    route(POST, "/api/chat",                 Ready,  Read,      |m| on(m, generate::<ollama::Chat>)),
    route(POST, "/api/generate",             Ready,  Read,      |m| on(m, generate::<ollama::Generate>)),
];

/// What holds for everything that is not in the table: a 404.
const OTHER: Rules = Rules {
    path: "other",
    access: Ready,
    body: Discarded,
};

/// One method of one path, and who answers it.
pub(crate) struct Route {
    pub(crate) method: MethodFilter,
    pub(crate) rules: Rules,
    handler: fn(MethodFilter) -> MethodRouter<Server>,
}

/// What holds for a request before its route is asked, whatever its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The path, which names the route in metrics as well. What stands in braces at its end may be any rest of a
    /// path, for names of models have slashes.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) body: BodyUse,
}

/// Who may call a route, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, at any time: probes.
    Open,
    /// Holders of a key, at any time.
    Key,
    /// Holders of a key at any time, and anybody where the operator lets metrics be read by all.
    Scrape,
    /// Holders of a key at any time, and browsers, which get a page without data.
    Page,
    /// Holders of a key, once the models are ready. Not being ready comes first: a gateway takes a
    /// 401 or a 404 for a reason to stay away, a 503 for a reason to come back.
    Ready,
}

/// What becomes of the bodies of a route's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyUse {
    /// They are thrown away beforehand.
    Discarded,
    /// The handler reads them, within the limits of bodies, and computes something: its requests count against the
    /// limits of their keys.
    Read,
}

const fn route(
    method: MethodFilter,
    path: &'static str,
    access: Access,
    body: BodyUse,
    handler: fn(MethodFilter) -> MethodRouter<Server>,
) -> Route {
    let rules = Rules { path, access, body };
    Route {
        method,
        rules,
        handler,
    }
}

impl Route {
    /// The path in the router's notation.
    fn pattern(&self) -> String {
        self.rules.path.replace('{', "{*")
    }
}

impl Rules {
    /// What holds for requests to a path.
    pub(crate) fn of(path: &str) -> Self {
        let mut all = ROUTES.iter().map(|route| route.rules);
        all.find(|rules| rules.hold_for(path)).unwrap_or(OTHER)
    }

    fn hold_for(&self, path: &str) -> bool {
        match self.path.split_once('{') {
            Some((begin, _)) => path.starts_with(begin),
            None => path == self.path,
        }
    }
}

impl Access {
    /// Whether anybody may call with these headers, without a key.
    pub(crate) fn is_open(self, config: &ServerConfig, headers: &HeaderMap) -> bool {
        match self {
            Open => true,
            Scrape => config.public_metrics,
            Page => page::is_wanted(headers),
            Key | Ready => false,
        }
    }
}

impl Server {
    /// All routes, for [`serve`](crate::serve) or for a server of one's own.
    pub fn router(&self) -> Router {
        self.enveloped(ollama::refused(), |_| true)
    }

    /// The routes that say whether the server is well, and no others.
    pub(crate) fn probe_router(&self) -> Router {
        self.enveloped(Router::new(), |route| route.rules.access == Open)
    }

    /// Adds routes of the table to others, and puts before them what stands before all.
    fn enveloped(&self, others: Router<Self>, is_wanted: impl Fn(&Route) -> bool) -> Router {
        let wanted = ROUTES.iter().filter(|route| is_wanted(route));
        let routes = wanted.fold(others, |router, route| {
            router.route(&route.pattern(), (route.handler)(route.method))
        });
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
    fn what_holds_for_a_path_holds_for_each_of_its_methods() {
        for route in ROUTES {
            assert_eq!(Rules::of(route.rules.path), route.rules);
        }
    }

    #[test]
    fn bodies_are_read_of_those_alone_who_may_use_the_model() {
        let reading = ROUTES.iter().filter(|route| route.rules.body == Read);
        for route in reading {
            assert_eq!((route.method, route.rules.access), (POST, Ready));
        }
    }

    #[test]
    fn unknown_paths_share_one_label() {
        assert_eq!(Rules::of("/v1/models/a/b").path, "/v1/models/{id}");
        assert_eq!(Rules::of("/whatever"), OTHER);
        assert_eq!(Rules::of("/v1/model").path, "other");
    }
}
