//! A stream of events, server-sent ones or lines, as a response body that keeps itself alive and
//! survives panics.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use futures::stream::{BoxStream, Stream, StreamExt};
use tokio::time::{Instant, Sleep};

/// A comment, which every client of event streams skips.
const COMMENT: &str = ": keep-alive\n\n";

/// `Content-Type` of event streams.
pub(crate) const CONTENT_TYPE_VALUE: &str = "text/event-stream; charset=utf-8";

/// The keep-alive of protocols that have none of their own.
pub(crate) fn comment() -> String {
    COMMENT.to_owned()
}

/// A response that sends `events`, each of which is any number of complete events. It ends with
/// them, or at once if the client goes away: then `events` is dropped. After every pause of
/// `keep_alive_interval` it sends what `keep_alive` makes; after a panic, what `broken` makes.
pub(crate) fn response(
    events: impl Stream<Item = String> + Send + 'static,
    content_type: &'static str,
    keep_alive_interval: Duration,
    keep_alive: impl FnMut() -> String + Send + 'static,
    broken: fn() -> String,
) -> Response {
    let caught = AssertUnwindSafe(events).catch_unwind().map(move |event| {
        event.unwrap_or_else(|_| {
            tracing::error!("a stream panicked");
            broken()
        })
    });
    let body = KeepAlive::new(caught.boxed(), keep_alive_interval, Box::new(keep_alive))
        .map(Ok::<_, Infallible>);
    streamed(Body::from_stream(body), content_type)
}

/// A response whose body comes little by little.
pub(crate) fn streamed(body: Body, content_type: &'static str) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect a response before they pass it on would undo the streaming.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

type MakeKeepAlive = Box<dyn FnMut() -> String + Send>;

/// Fills the pauses of a stream.
struct KeepAlive {
    events: BoxStream<'static, String>,
    interval: Duration,
    keep_alive: MakeKeepAlive,
    /// When the stream sent something last.
    last: Instant,
    /// Ends at the earliest when a pause is over. It is not set anew at every event, which would
    /// take a lock of the runtime's for every token.
    pause: Pin<Box<Sleep>>,
}

impl KeepAlive {
    fn new(
        events: BoxStream<'static, String>,
        interval: Duration,
        keep_alive: MakeKeepAlive,
    ) -> Self {
        Self {
            events,
            interval,
            keep_alive,
            last: Instant::now(),
            pause: Box::pin(tokio::time::sleep(interval)),
        }
    }
}

impl Stream for KeepAlive {
    type Item = String;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<String>> {
        let this = self.get_mut();
        while let Poll::Ready(event) = this.events.poll_next_unpin(context) {
            // Nothing to show is no sign of life.
            if event.as_ref().is_some_and(String::is_empty) {
                continue;
            }
            this.last = Instant::now();
            return Poll::Ready(event);
        }
        while this.pause.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let over = this.last + this.interval <= now;
            if over {
                this.last = now;
            }
            this.pause.as_mut().reset(this.last + this.interval);
            if over {
                return Poll::Ready(Some((this.keep_alive)()));
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_are_filled_and_events_come_through() {
        let events = stream::unfold(0, async |count| {
            tokio::time::sleep(Duration::from_secs(25)).await;
            (count < 2).then(|| (format!("event {count}"), count + 1))
        });
        let interval = Duration::from_secs(10);
        let all: Vec<String> = KeepAlive::new(events.boxed(), interval, Box::new(comment))
            .collect()
            .await;
        let pause = [COMMENT, COMMENT];
        let expected = [&pause[..], &["event 0"], &pause, &["event 1"], &pause].concat();
        assert_eq!(all, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn events_without_text_do_not_keep_alive() {
        let events = stream::unfold(0, async |count| {
            tokio::time::sleep(Duration::from_secs(4)).await;
            (count < 5).then(|| (String::new(), count + 1))
        });
        let all: Vec<String> =
            KeepAlive::new(events.boxed(), Duration::from_secs(10), Box::new(comment))
                .collect()
                .await;
        assert_eq!(all, [COMMENT, COMMENT]);
    }

    #[tokio::test]
    async fn a_panic_becomes_an_event() {
        let events = stream::once(async { panic!("a defect") });
        let broken = || "broken".to_owned();
        let response = response(
            events,
            CONTENT_TYPE_VALUE,
            Duration::from_secs(10),
            comment,
            broken,
        );
        let body = axum::body::to_bytes(response.into_body(), 1000)
            .await
            .unwrap();
        assert_eq!(body, "broken");
    }
}
