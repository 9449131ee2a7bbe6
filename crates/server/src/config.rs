//! What an operator can set about the HTTP side, with its defaults.

use std::sync::Arc;
use std::time::Duration;

use backstop_audit::AuditRecorder;
use backstop_protocol::UnsupportedContent;

use crate::cors::Cors;
use crate::gate::{AdmissionProfile, QueueLimits};
use crate::keys::KeySet;
use crate::tls::Tls;
use crate::traces::Traces;
use crate::trial::GrammarWorker;

/// Limits and identity of the HTTP server. Every wait and every size has a bound here.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Keys that clients must present; `None` serves everybody.
    pub api_keys: Option<KeySet>,
    /// Leave `/metrics` open although keys are set, for scrapers that cannot send one.
    pub public_metrics: bool,
    /// What TCP connections are encrypted with; `None` leaves them plain. Unix sockets are never encrypted.
    pub tls: Option<Arc<Tls>>,
    /// What is recorded of requests for a collector of traces.
    pub traces: Option<Arc<Traces>>,
    /// Pages in browsers that may read the answers; `None` says nothing to browsers, so that only
    /// pages of the server's own origin may.
    pub cors: Option<Cors>,
    /// Where it is written down who asked for what, and how it ended.
    pub audit_log: Option<AuditRecorder>,
    /// Largest request body, unpacked.
    pub max_body_bytes: usize,
    /// Bytes of bodies that are read and not yet turned into tokens, over all requests. With several
    /// keys, each may hold as much as it leaves free.
    pub max_buffered_body_bytes: usize,
    /// Which of the following two limits hold at the start.
    pub admission_profile: AdmissionProfile,
    /// How much may wait on an ordinary day.
    pub normal: QueueLimits,
    /// How much may wait in an outage.
    pub outage: QueueLimits,
    /// Prompt tokens that may wait. A longer prompt may wait alone.
    pub max_queued_tokens: Option<u64>,
    /// Longest life of a request, from its first byte to its last.
    pub request_timeout: Duration,
    /// Longest time that a client may take to send a request's body.
    pub body_read_timeout: Duration,
    /// Longest time that a client may take over the beginning of TLS, and over a request's head, from the connection's beginning
    /// or from the first byte of a later request.
    pub head_read_timeout: Duration,
    /// Longest idle time of a kept-alive connection.
    pub idle_timeout: Duration,
    /// Longest time that a client may refuse to read what it asked for.
    pub write_stall_timeout: Duration,
    /// Open connections. If there are more, those make room on which no request was let in, or else
    /// idle ones.
    pub max_connections: usize,
    /// Open connections of one address (of an IPv6 network of 64 bits) on which no request was let
    /// in. If there are more, the oldest makes room.
    pub max_stranger_connections_per_address: usize,
    /// Long prompts that are rendered and tokenised, and grammars that are compiled, at once.
    pub max_concurrent_encodes: usize,
    /// Tries the grammars that requests write; without one, they are compiled untried.
    pub grammar_worker: Option<GrammarWorker>,
    /// Without keys, let requests choose their priority. Otherwise they are served in order of
    /// arrival, and no client can push itself before the others. With keys, each key says whether
    /// its requests may choose their lane.
    pub allow_priority: bool,
    /// Let the texts of control tokens in the contents of conversations become such tokens. Without
    /// it they are text, and only the chat template makes control tokens.
    pub allow_special_tokens_in_content: bool,
    /// What becomes of images, audio and files in the latest user message.
    pub unsupported_content: UnsupportedContent,
    /// Let keys find each other's cached prefixes. Otherwise only requests of the same key do.
    pub share_prefix_cache: bool,
    /// Pause in a stream, or before it, after which it gives a sign of life.
    pub keep_alive_interval: Duration,
    /// Time after which an answer that is not streamed has its head sent before it, and pause
    /// between the spaces that follow until it is there. What fails then is a 200 all the same, with
    /// an error as its body. `None`: an answer is sent when it is there.
    pub response_keep_alive: Option<Duration>,
    /// Work without progress for this long means that an engine or an encoder hangs.
    pub watchdog_timeout: Duration,
    /// Longest wait for running requests at shutdown.
    pub drain_timeout: Duration,
    /// A request wakes a server that sleeps, and waits for it as long as it may wait in the queue.
    pub wake_on_request: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            api_keys: None,
            public_metrics: false,
            tls: None,
            traces: None,
            cors: None,
            audit_log: None,
            max_body_bytes: 32 << 20,
            max_buffered_body_bytes: 512 << 20,
            admission_profile: AdmissionProfile::Normal,
            normal: QueueLimits::NORMAL,
            outage: QueueLimits::OUTAGE,
            max_queued_tokens: None,
            request_timeout: Duration::from_secs(3600),
            body_read_timeout: Duration::from_secs(60),
            head_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_stall_timeout: Duration::from_secs(120),
            max_connections: 4096,
            max_stranger_connections_per_address: 1024,
            max_concurrent_encodes: 8,
            grammar_worker: None,
            allow_priority: false,
            allow_special_tokens_in_content: false,
            unsupported_content: UnsupportedContent::Refuse,
            share_prefix_cache: false,
            // So that nobody sees two seconds pass in silence, be the network slow or the machine busy.
            keep_alive_interval: Duration::from_millis(1500),
            response_keep_alive: None,
            watchdog_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(600),
            wake_on_request: false,
        }
    }
}
