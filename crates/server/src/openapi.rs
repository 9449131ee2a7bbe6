//! `GET /openapi.json`: the description of the API, which is written by hand.
//!
//! The tests below hold it against the table of routes and the limits of requests;
//! `tests/python/test_openapi.py` holds it against the answers of the running server.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// The document of `GET /openapi.json`.
pub const DOCUMENT: &str = include_str!("../openapi.json");

pub(crate) async fn handle() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::routing::MethodFilter;
    use backstop_protocol::limits;
    use serde_json::{Value, json};

    use super::*;
    use crate::routes::{Access, ROUTES, Route};

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    fn request(name: &str) -> Value {
        document()["components"]["schemas"][name]["properties"].clone()
    }

    /// The name that a route's method has in the document.
    fn method(route: &Route) -> &'static str {
        match route.method {
            MethodFilter::GET => "get",
            MethodFilter::POST => "post",
            other => panic!("{other:?} has no name here"),
        }
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = document();
        let paths = document["paths"].as_object().unwrap().iter();
        let described: BTreeSet<(&str, &str)> = paths
            .flat_map(|(path, operations)| {
                let methods = operations.as_object().unwrap().keys();
                methods.map(|method| (path.as_str(), method.as_str()))
            })
            .collect();
        let served = ROUTES.iter().map(|route| (route.rules.path, method(route)));
        assert_eq!(described, served.collect());
    }

    #[test]
    fn only_open_routes_are_described_as_open() {
        let document = document();
        for route in ROUTES {
            let operation = &document["paths"][route.rules.path][method(route)];
            let open = operation.get("security") == Some(&json!([]));
            let is_open = route.rules.access == Access::Open;
            assert_eq!(open, is_open, "{}", route.rules.path);
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut rest = DOCUMENT;
        while let Some((_, after)) = rest.split_once("\"$ref\": \"#") {
            let (pointer, after) = after.split_once('"').unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            rest = after;
        }
    }

    #[test]
    fn limits_are_those_of_the_parser() {
        let chat = request("ChatRequest");
        let completion = request("CompletionRequest");
        let schemas = document()["components"]["schemas"].clone();
        for request in [&chat, &completion] {
            assert_eq!(request["n"]["maximum"], limits::MAX_CHOICES);
            assert_eq!(
                request["stop_token_ids"]["maxItems"],
                limits::MAX_STOP_TOKEN_IDS
            );
            assert_eq!(request["top_k"]["maximum"], limits::MAX_TOKEN_NUMBER);
        }
        assert_eq!(chat["messages"]["maxItems"], limits::MAX_MESSAGES);
        assert_eq!(chat["tools"]["maxItems"], limits::MAX_TOOLS);
        assert_eq!(chat["documents"]["maxItems"], limits::MAX_DOCUMENTS);
        assert_eq!(chat["top_logprobs"]["maximum"], limits::MAX_TOP_LOGPROBS);
        assert_eq!(completion["logprobs"]["maximum"], limits::MAX_TOP_LOGPROBS);
        assert_eq!(
            completion["prompt"]["anyOf"][1]["maxItems"],
            limits::MAX_PROMPTS
        );
        assert_eq!(
            completion["prompt"]["anyOf"][2]["maxItems"],
            limits::MAX_PROMPT_TOKENS
        );
        assert_eq!(
            schemas["Stop"]["anyOf"][1]["maxItems"],
            limits::MAX_STOP_STRINGS
        );
        assert_eq!(
            schemas["Stop"]["anyOf"][0]["maxLength"],
            limits::MAX_STOP_STRING_BYTES
        );
        assert_eq!(
            schemas["LogitBias"]["anyOf"][0]["maxProperties"],
            limits::MAX_LOGIT_BIAS
        );
        assert_eq!(schemas["Label"]["maxLength"], limits::MAX_LABEL_BYTES);
        assert_eq!(schemas["OpaqueId"]["maxLength"], limits::MAX_OPAQUE_BYTES);
        assert_eq!(schemas["CacheSalt"]["maxLength"], limits::MAX_LABEL_BYTES);
        assert_eq!(schemas["TokenId"]["maximum"], limits::MAX_TOKEN_NUMBER);
        let decision = request("DecisionRequest");
        assert_eq!(
            decision["questions"]["maxItems"],
            limits::MAX_DECISION_QUESTIONS
        );
        let question = request("DecisionQuestion");
        assert_eq!(
            question["choices"]["maxItems"],
            limits::MAX_DECISION_CHOICES
        );
        assert_eq!(question["levels"]["maxItems"], limits::MAX_DECISION_LEVELS);
        let infill = request("InfillRequest");
        assert_eq!(infill["input_extra"]["maxItems"], limits::MAX_CONTEXT_FILES);
        assert_eq!(
            infill["response_fields"]["maxItems"],
            limits::MAX_RESPONSE_FIELDS
        );
        let messages = request("MessagesRequest");
        assert_eq!(messages["messages"]["maxItems"], limits::MAX_MESSAGES);
        assert_eq!(
            messages["stop_sequences"]["maxItems"],
            limits::MAX_STOP_STRINGS
        );
        let responses = request("ResponsesRequest");
        assert_eq!(
            responses["input"]["anyOf"][1]["maxItems"],
            limits::MAX_MESSAGES
        );
        assert_eq!(
            responses["metadata"]["maxProperties"],
            limits::MAX_METADATA_ENTRIES
        );
        let ollama = request("OllamaChatRequest");
        assert_eq!(ollama["messages"]["maxItems"], limits::MAX_MESSAGES);
        assert_eq!(ollama["tools"]["maxItems"], limits::MAX_TOOLS);
        assert_eq!(ollama["top_logprobs"]["maximum"], limits::MAX_TOP_LOGPROBS);
        let generation = request("OllamaGenerateRequest");
        assert_eq!(generation["context"]["maxItems"], limits::MAX_PROMPT_TOKENS);
        let detokenize = request("DetokenizeRequest");
        assert_eq!(detokenize["tokens"]["maxItems"], limits::MAX_PROMPT_TOKENS);
        let embedding = request("EmbeddingRequest");
        for batch in [1, 3] {
            let inputs = &embedding["input"]["anyOf"][batch];
            assert_eq!(inputs["maxItems"], limits::MAX_ENCODER_INPUTS);
        }
        let rerank = request("RerankRequest");
        assert_eq!(rerank["documents"]["maxItems"], limits::MAX_ENCODER_INPUTS);
        let retry_after = &document()["components"]["headers"]["RetryAfter"];
        assert_eq!(retry_after["schema"]["maximum"], limits::MAX_RETRY_AFTER_S);
    }
}
