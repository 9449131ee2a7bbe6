//! Checks of what happens when clients leave, and when there are too many of them.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::Check;
use super::asking::{Asker, Response};
use super::checks::{held, not_tried};

/// Streams that are broken off.
const BROKEN_OFF: usize = 4;
/// How soon a server should have noticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);
/// Names of gauges of requests under way: Backstop's and vLLM's, SGLang's, llama.cpp's.
const IN_FLIGHT: [&str; 6] = [
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "sglang:num_running_reqs",
    "sglang:num_queue_reqs",
    "llamacpp:requests_processing",
    "llamacpp:requests_deferred",
];
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Gateways hang up when their clients do; a server that goes on answering computes for nobody.
pub(super) async fn cancellation(asker: &Asker) -> Check {
    let (name, expected) = (
        "cancellation",
        "streams whose clients hang up end, so that nothing is computed for nobody",
    );
    if in_flight(asker).await.is_none() {
        return not_tried(
            name,
            expected,
            "the server does not say how many requests are in flight (GET /metrics)",
        );
    }
    let mut streams = JoinSet::new();
    for _ in 0..BROKEN_OFF {
        let asker = asker.clone();
        streams.spawn(async move { asker.break_off().await });
    }
    let begun = streams
        .join_all()
        .await
        .into_iter()
        .filter(|began| *began)
        .count();
    if begun == 0 {
        return held(name, expected, false, "no stream began".into());
    }
    let since = Instant::now();
    let mut left = in_flight(asker).await;
    while left.is_some_and(|left| left > 0) && since.elapsed() < NOTICED_WITHIN {
        tokio::time::sleep(LOOK_AGAIN).await;
        left = in_flight(asker).await;
    }
    let seen = match left {
        Some(0) => format!(
            "{begun} streams broken off, none in flight after {:.1} s",
            since.elapsed().as_secs_f64()
        ),
        Some(left) => format!(
            "{left} of {begun} still in flight after {} s",
            NOTICED_WITHIN.as_secs()
        ),
        None => "the server stopped saying what is in flight".into(),
    };
    held(name, expected, left == Some(0), seen)
}

/// Requests that run or wait, as the server's metrics have them. Asking for these is not counted.
async fn in_flight(asker: &Asker) -> Option<u64> {
    let response = asker.get("/metrics").await.ok()?;
    (response.status == 200)
        .then(|| gauges(&response.text))
        .flatten()
}

/// The sum of all gauges of requests under way, in Prometheus' text format.
fn gauges(metrics: &str) -> Option<u64> {
    let value = |line: &str| {
        let rest = IN_FLIGHT.iter().find_map(|name| line.strip_prefix(name))?;
        let is_whole_name = rest.starts_with([' ', '{']);
        let value: f64 = rest.rsplit(' ').next()?.parse().ok()?;
        (is_whole_name && value >= 0.0).then_some(value as u64)
    };
    let values: Vec<u64> = metrics.lines().filter_map(value).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

const OVERLOAD: (&str, &str) = (
    "overload",
    "what cannot be served is refused with 429 or 503 and Retry-After, and everything else is answered",
);

/// Sends so many requests at once.
pub(super) async fn overload(asker: &Asker, clients: u16) -> Check {
    let mut asking = JoinSet::new();
    for _ in 0..clients {
        let asker = asker.clone();
        asking.spawn(async move { asker.post(&asker.chat(json!({"max_tokens": 64}))).await });
    }
    judge(&asking.join_all().await)
}

fn judge(answers: &[Result<Response, String>]) -> Check {
    let (name, expected) = OVERLOAD;
    let responses = || answers.iter().filter_map(|answer| answer.as_ref().ok());
    let count =
        |is: &dyn Fn(&Response) -> bool| responses().filter(|response| is(response)).count();
    let is_shed = |response: &Response| [429, 503].contains(&response.status);
    let hinted =
        |response: &Response| response.header("retry-after").is_some() && response.is_error();
    let answered = count(&|response| response.status == 200);
    let shed = count(&is_shed);
    let with_hint = count(&|response| is_shed(response) && hinted(response));
    let other = answers.len() - answered - shed;
    let seen = format!(
        "{answered} answered, {shed} refused ({with_hint} of them with Retry-After), {other} neither"
    );
    if shed == 0 && other == 0 {
        let why =
            format!("all {answered} requests at once were answered: nothing had to be refused");
        return not_tried(name, expected, &why);
    }
    held(name, expected, shed == with_hint && other == 0, seen)
}

pub(super) fn no_overload() -> Check {
    let why = "it would disturb whoever uses the server: --overload NUMBER";
    let (name, expected) = OVERLOAD;
    not_tried(name, expected, why)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderMap;

    use super::super::CheckOutcome;
    use super::*;

    fn answer(status: u16, hint: bool) -> Result<Response, String> {
        let mut headers = HeaderMap::new();
        if hint {
            headers.insert("retry-after", "1".parse().unwrap());
        }
        Ok(Response {
            status,
            headers,
            text: r#"{"error": {"type": "overloaded", "message": "later"}}"#.into(),
        })
    }

    #[test]
    fn requests_under_way_are_counted_whoevers_metrics_they_are() {
        let metrics = "# HELP vllm:num_requests_running Running\n\
                       vllm:num_requests_running{model_name=\"a b\"} 2\n\
                       vllm:num_requests_waiting{model_name=\"a b\"} 1.0\n\
                       vllm:num_requests_running_total 9\n";
        assert_eq!(gauges(metrics), Some(3));
        assert_eq!(gauges("llamacpp:requests_processing 0\n"), Some(0));
        assert_eq!(gauges("process_start_time_seconds 1\n"), None);
    }

    #[test]
    fn an_overload_is_judged_by_how_it_was_refused() {
        let outcome = |answers: &[Result<Response, String>]| judge(answers).outcome;
        assert_eq!(
            outcome(&[answer(200, false), answer(429, true)]),
            CheckOutcome::Passed
        );
        assert_eq!(
            outcome(&[answer(200, false), answer(503, false)]),
            CheckOutcome::Failed
        );
        assert_eq!(
            outcome(&[answer(429, true), Err("reset".into())]),
            CheckOutcome::Failed
        );
        assert_eq!(
            outcome(&[answer(429, true), answer(500, true)]),
            CheckOutcome::Failed
        );
        assert_eq!(outcome(&[answer(200, false)]), CheckOutcome::NotTried);
    }
}
