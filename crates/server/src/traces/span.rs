//! One request as a span, with the attributes of OpenTelemetry's conventions for HTTP and for generative models, and
//! with vLLM's for latencies.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::entropy::{random_u64, random_u128};
use crate::exchange::Past;

/// A span by which a server answers a request.
const KIND_SERVER: u32 = 2;
const STATUS_ERROR: u32 = 2;

/// A value of an attribute.
pub(super) enum Scalar {
    Text(String),
    Count(u64),
    Seconds(f64),
    Flag(bool),
    Texts(Vec<String>),
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Duration> for Scalar {
    fn from(time: Duration) -> Self {
        Self::Seconds(time.as_secs_f64())
    }
}

/// An attribute as OTLP has it in JSON, where whole numbers are texts.
pub(super) fn attribute(key: &str, value: Scalar) -> Value {
    let value = match value {
        Scalar::Text(text) => json!({ "stringValue": text }),
        Scalar::Count(count) => json!({ "intValue": count.to_string() }),
        Scalar::Seconds(seconds) => json!({ "doubleValue": seconds }),
        Scalar::Flag(flag) => json!({ "boolValue": flag }),
        Scalar::Texts(texts) => {
            let values = texts.iter().map(|text| json!({ "stringValue": text }));
            json!({ "arrayValue": { "values": values.collect::<Vec<Value>>() } })
        }
    };
    json!({ "key": key, "value": value })
}

/// The span of an exchange that was over at a time.
pub(super) fn span(past: &Past, at: SystemTime) -> Value {
    let exchange = &past.exchange;
    let parent = exchange.trace;
    let trace_id = parent.map_or_else(random_u128, |parent| parent.trace_id);
    let end = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let start = end.saturating_sub(past.elapsed);
    let mut span = json!({
        "traceId": format!("{trace_id:032x}"),
        // Zero would be no id.
        "spanId": format!("{:016x}", random_u64().max(1)),
        "name": name(past),
        "kind": KIND_SERVER,
        "startTimeUnixNano": start.as_nanos().to_string(),
        "endTimeUnixNano": end.as_nanos().to_string(),
        "attributes": attributes(past),
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = format!("{:016x}", parent.span_id).into();
    }
    let status = past
        .facts
        .failure
        .map_or(exchange.status, |failure| failure.status);
    if status >= 500 {
        span["status"] = json!({ "code": STATUS_ERROR });
    }
    span
}

/// What is done, and by which model.
fn name(past: &Past) -> String {
    let exchange = &past.exchange;
    match (operation(exchange.route), exchange.model_name()) {
        (Some(operation), Some(model)) => format!("{operation} {model}"),
        _ => format!("{} {}", exchange.method, exchange.route),
    }
}

/// What a route does, in the convention's words; of others than these it has none.
fn operation(route: &str) -> Option<&'static str> {
    match route {
        "/v1/chat/completions" | "/v1/responses" | "/v1/messages" | "/api/chat" => Some("chat"),
        "/v1/completions" | "/v1/fim/completions" | "/infill" | "/api/generate" => {
            Some("text_completion")
        }
        "/v1/embeddings" => Some("embeddings"),
        _ => None,
    }
}

fn attributes(past: &Past) -> Vec<Value> {
    let Past {
        exchange, facts, ..
    } = past;
    let text = |text: &str| Some(Scalar::from(text));
    let of_http = [
        ("http.request.method", text(exchange.method.as_str())),
        ("http.route", text(exchange.route)),
        (
            "http.response.status_code",
            Some(Scalar::Count(exchange.status.into())),
        ),
        ("client.address", exchange.client_ip().map(Scalar::Text)),
        ("error.type", error_type(past)),
        ("backstop.key", exchange.key().map(Scalar::from)),
        (
            "backstop.aborted",
            (!past.is_whole).then_some(Scalar::Flag(true)),
        ),
    ];
    let usage = facts.usage;
    let count = |tokens: Option<u32>| tokens.map(|tokens| Scalar::Count(tokens.into()));
    let (prompt, completion) = (
        usage.map(|usage| usage.prompt_tokens()),
        usage.map(|usage| usage.completion_tokens()),
    );
    let of_the_model = [
        (
            "gen_ai.operation.name",
            operation(exchange.route).map(Scalar::from),
        ),
        ("gen_ai.provider.name", text("backstop")),
        (
            "gen_ai.response.model",
            exchange.model_name().map(Scalar::from),
        ),
        (
            "gen_ai.request.id",
            exchange.id.to_str().ok().map(Scalar::from),
        ),
        ("gen_ai.usage.input_tokens", count(prompt)),
        ("gen_ai.usage.output_tokens", count(completion)),
        ("gen_ai.usage.prompt_tokens", count(prompt)),
        ("gen_ai.usage.completion_tokens", count(completion)),
        (
            "gen_ai.usage.cache_read.input_tokens",
            count(usage.map(|usage| usage.cached_tokens())),
        ),
        (
            "gen_ai.response.finish_reasons",
            facts
                .ended
                .map(|ended| Scalar::Texts(vec![ended.reason.to_owned()])),
        ),
    ];
    let all = of_http
        .into_iter()
        .chain(of_the_model)
        .chain(latencies(past));
    all.filter_map(|(key, value)| Some(attribute(key, value?)))
        .collect()
}

/// How long the parts took, by vLLM's names.
fn latencies(past: &Past) -> [(&'static str, Option<Scalar>); 6] {
    let ended = past.facts.ended;
    let began = ended.filter(|ended| ended.began).map(|ended| ended.phases);
    let time = |time: Option<Duration>| time.map(Scalar::from);
    [
        (
            "gen_ai.latency.time_in_queue",
            time(ended.map(|ended| ended.phases.queued)),
        ),
        (
            "gen_ai.latency.time_to_first_token",
            time(began.map(|phases| phases.queued + phases.prompt)),
        ),
        (
            "gen_ai.latency.time_in_model_prefill",
            time(began.map(|phases| phases.prompt)),
        ),
        (
            "gen_ai.latency.time_in_model_decode",
            time(began.map(|phases| phases.decoding)),
        ),
        (
            "gen_ai.latency.time_in_model_inference",
            time(began.map(|phases| phases.prompt + phases.decoding)),
        ),
        ("gen_ai.latency.e2e", time(Some(past.elapsed))),
    ]
}

/// The code of an error, or else its status.
fn error_type(past: &Past) -> Option<Scalar> {
    let failure = past.facts.failure?;
    Some(match failure.code {
        Some(code) => code.into(),
        None => Scalar::Text(failure.status.to_string()),
    })
}
