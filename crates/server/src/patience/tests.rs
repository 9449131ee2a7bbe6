//! Time passes by itself here.

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use backstop_engine::Lifecycle;

use super::*;
use crate::identity::Identity;
use crate::in_flight::RequestGuard;
use crate::metrics::Exposition;
use crate::record::Record;
use crate::reply::ErrorReply;
use crate::server::Server;

const INTERVAL: Duration = Duration::from_secs(2);

fn server() -> Server {
    Server::new(ServerConfig::default(), Lifecycle::new())
}

fn late_failure(server: &Server) -> LateFailure {
    let ticket = server.anybody().begin().unwrap();
    let request = RequestGuard::new(server, ticket, Record::default());
    LateFailure::of(Identity::of(&Request::default()), &request)
}

/// A route that has read a body, works for so long, and then gives this answer.
async fn kept<A: IntoResponse + Send + 'static>(
    body: &'static str,
    work_s: u64,
    answer: A,
) -> Response {
    kept_by(&server(), body, work_s, answer).await
}

async fn kept_by<A: IntoResponse + Send + 'static>(
    server: &Server,
    body: &'static str,
    work_s: u64,
    answer: A,
) -> Response {
    let manner = Manner::OPENAI;
    let form = form_of(body.as_bytes(), manner.streams_by_default);
    let answering = async move {
        sleep(Duration::from_secs(work_s)).await;
        answer.into_response()
    };
    keep(
        form,
        Some(INTERVAL),
        manner,
        late_failure(server),
        answering,
    )
    .await
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await;
    String::from_utf8(bytes.unwrap().to_vec()).unwrap()
}

#[test]
fn a_request_says_how_it_wants_its_answer() {
    let forms = [
        ("{}", false, Form::Whole),
        ("{}", true, Form::Streamed),
        ("{\"stream\": null}", true, Form::Streamed),
        ("{\"a\": [{\"stream\": true}]}", false, Form::Whole),
        (
            "{\"a\": \"\\\"stream\\\": true\", \"stream\": true}",
            false,
            Form::Streamed,
        ),
        ("{\"\\u0073tream\": true}", false, Form::Streamed),
        ("{\"stream\": false}", true, Form::Whole),
        ("{\"stream\": 1}", true, Form::Whole),
        ("{\"stream\": true", false, Form::Whole),
    ];
    for (body, default, form) in forms {
        assert_eq!(form_of(body.as_bytes(), default), form, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_time_is_left_as_it_is() {
    let answer = kept("{}", 1, "{}").await;
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(text(answer).await, "{}");
    let refused = kept("{}", 1, ErrorReply(ApiError::queue_full(3))).await;
    assert_eq!(
        (
            refused.status().as_u16(),
            refused.headers()["retry-after"].as_bytes()
        ),
        (429, &b"3"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_come_until_the_answer_does() {
    let answer = kept("{}", 7, "{}").await;
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
    // After two seconds, four and six.
    assert_eq!(text(answer).await, "   {}");
    let streamed = kept("{\"stream\": true}", 5, "data: 1\n\n").await;
    assert_eq!(streamed.headers()[CONTENT_TYPE], sse::CONTENT_TYPE_VALUE);
    let comments = sse::comment().repeat(2);
    assert_eq!(text(streamed).await, comments + "data: 1\n\n");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_begin_is_waited_for_like_one_that_is_not_there() {
    let pieces = stream::once(async {
        sleep(Duration::from_secs(4)).await;
        Ok::<_, std::io::Error>("data: 1\n\n")
    });
    let answer = kept("{\"stream\": true}", 3, Body::from_stream(pieces)).await;
    let comments = sse::comment().repeat(3);
    assert_eq!(text(answer).await, comments + "data: 1\n\n");
}

#[tokio::test(start_paused = true)]
async fn what_fails_late_says_so_in_its_body() {
    let (server, error) = (server(), ApiError::engine_failure());
    let whole = kept_by(&server, "{}", 3, ErrorReply(error.clone())).await;
    assert_eq!(whole.status(), 200);
    assert_eq!(text(whole).await, format!(" {}", error.to_json_string()));
    let streaming = "{\"stream\": true}";
    let streamed = kept_by(&server, streaming, 3, ErrorReply(error.clone())).await;
    assert_eq!(text(streamed).await, sse::comment() + &sse_error(&error));
    let metrics = server
        .metrics()
        .encode(Exposition::PlainText, None)
        .unwrap();
    let counted = "backstop:late_failures_total{route=\"/\",status=\"500\"} 2\n";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn who_is_not_looked_after_waits_for_as_long_as_it_takes() {
    let answering = async {
        sleep(Duration::from_secs(100)).await;
        ErrorReply(ApiError::engine_failure()).into_response()
    };
    let response = keep(
        Form::Whole,
        None,
        Manner::OPENAI,
        late_failure(&server()),
        answering,
    )
    .await;
    assert_eq!(response.status(), 500);
}
