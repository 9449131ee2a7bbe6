//! Settings of `serve`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use backstop_protocol::UnsupportedContent;
use clap::{Args, ValueEnum};

use super::audit::AuditArgs;
use super::encoders::EncoderArgs;
use super::listening::ListeningArgs;
use super::log::LogArgs;
use super::model::ModelArgs;
use super::standby::StandbyArgs;
use super::tls::TlsArgs;
use super::traces::TracesArgs;
use crate::quantities::{JsonList, parse_duration, parse_json_list};

/// All of them.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) encoders: EncoderArgs,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    #[command(flatten)]
    pub(crate) listening: ListeningArgs,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,

    #[command(flatten)]
    pub(crate) callers: CallerArgs,

    #[command(flatten)]
    pub(crate) answers: AnswerArgs,

    #[command(flatten)]
    pub(crate) queue: QueueArgs,

    #[command(flatten)]
    pub(crate) audit: AuditArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) traces: TracesArgs,

    #[command(flatten)]
    pub(crate) standby: StandbyArgs,

    /// Directory in which the weights are kept as the CPU computes with them, written once the model has answered and
    /// while no request runs: later starts read them instead of arranging them anew. May be deleted at any time.
    /// Whoever may write there chooses the weights. [default: none]
    #[arg(
        long,
        env = "BACKSTOP_WEIGHT_CACHE",
        value_name = "DIR",
        help_heading = "Model"
    )]
    pub(crate) weight_cache: Option<PathBuf>,

    /// TOML file with any of these settings, named as the flags are.
    #[arg(long, env = "BACKSTOP_CONFIG", help_heading = "Server")]
    pub(crate) config: Option<PathBuf>,
}

/// Where and as what it serves.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// Address to listen on.
    #[arg(long, env = "BACKSTOP_HOST", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,

    /// Port to listen on; 0 takes a free one.
    #[arg(long, env = "BACKSTOP_PORT", default_value = "8000")]
    pub(crate) port: u16,

    /// Address and port, such as 0.0.0.0:8001, where /health, /ready and /ping are answered as well,
    /// by a thread of their own and without keys, so that no load on the main port delays them.
    #[arg(long, env = "BACKSTOP_PROBE_ADDRESS", value_name = "ADDRESS:PORT")]
    pub(crate) probe_address: Option<SocketAddr>,

    /// Name that requests may ask for; repeatable, and `*` answers to any name. [default: the
    /// model's own]
    #[arg(long, env = "BACKSTOP_SERVED_MODEL_NAME", value_delimiter = ',')]
    pub(crate) served_model_name: Vec<String>,

    /// Keep what is otherwise given up once the settings are read: reading files other than those of the models and of
    /// the settings, writing any, starting other programs, and every connection but those that clients open (Landlock
    /// and seccomp, where the kernel has them).
    #[arg(long, env = "BACKSTOP_NO_SANDBOX")]
    pub(crate) no_sandbox: bool,

    /// Time that running requests get to finish after SIGTERM.
    #[arg(long, env = "BACKSTOP_SHUTDOWN_TIMEOUT", value_parser = parse_duration, default_value = "30s")]
    pub(crate) shutdown_timeout: Duration,

    /// Work without a step that ends, for so long, means that an engine or an encoder hangs: /health says so, all requests
    /// are answered with errors, the stacks of all threads are logged, and the process ends with 71. A step that is merely
    /// long may take four times what its tokens took before.
    #[arg(long, env = "BACKSTOP_WATCHDOG_TIMEOUT", value_parser = parse_duration, default_value = "60s")]
    pub(crate) watchdog_timeout: Duration,
}

/// Who may call.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Callers")]
pub(crate) struct CallerArgs {
    /// File with one API key a line, as it is or as a digest, followed by its settings (`backstop
    /// key` writes such lines). Read again when it changes and on SIGHUP. Without it every request
    /// is answered.
    #[arg(long, env = "BACKSTOP_API_KEY_FILE")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// Let keys find each other's cached prefixes, which shows them what others have asked before.
    /// Otherwise only requests of the same key do.
    #[arg(long, env = "BACKSTOP_SHARE_PREFIX_CACHE")]
    pub(crate) share_prefix_cache: bool,

    /// Without keys: let requests choose their `priority`. With keys, each key says whether it may.
    #[arg(long, env = "BACKSTOP_ALLOW_PRIORITY")]
    pub(crate) allow_priority: bool,

    /// Answer /metrics without a key, for scrapers that cannot send one, such as endpoint pickers of Kubernetes. What keys
    /// have used stays between them and those that may see all.
    #[arg(long, env = "BACKSTOP_PUBLIC_METRICS")]
    pub(crate) public_metrics: bool,

    /// Origins of pages in browsers that may call, as a JSON list such as '["https://chat.example"]';
    /// '["*"]' stands for all. Without it browsers are told nothing, and keep pages of other origins
    /// from reading answers.
    #[arg(long, env = "BACKSTOP_ALLOWED_ORIGINS", value_name = "JSON", value_parser = parse_json_list)]
    pub(crate) allowed_origins: Option<JsonList>,

    /// Methods that those pages may use, as a JSON list. [default: '["*"]']
    #[arg(long, env = "BACKSTOP_ALLOWED_METHODS", value_name = "JSON", value_parser = parse_json_list)]
    pub(crate) allowed_methods: Option<JsonList>,

    /// Request headers that those pages may set, as a JSON list. [default: '["*"]']
    #[arg(long, env = "BACKSTOP_ALLOWED_HEADERS", value_name = "JSON", value_parser = parse_json_list)]
    pub(crate) allowed_headers: Option<JsonList>,

    /// Those pages may send cookies and the like, for a proxy in front of the server. The origins
    /// must be named then.
    #[arg(long, env = "BACKSTOP_ALLOW_CREDENTIALS")]
    pub(crate) allow_credentials: bool,
}

/// How requests are read and answered.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Answers")]
pub(crate) struct AnswerArgs {
    /// Let control tokens that are written out in messages, tools or documents be control tokens.
    /// Without it they are text.
    #[arg(long, env = "BACKSTOP_ALLOW_SPECIAL_TOKENS_IN_CONTENT")]
    pub(crate) allow_special_tokens_in_content: bool,

    /// What becomes of images, audio and files in the latest user message.
    #[arg(long, env = "BACKSTOP_UNSUPPORTED_CONTENT", default_value = "refuse")]
    pub(crate) unsupported_content: ContentChoice,

    /// After so long, such as 2s, an answer that is not streamed has its head sent before it, and a
    /// space as often until it is there, for clients and proxies of little patience. What fails then
    /// is a 200 with an error as its body. [default: an answer is sent when it is there]
    #[arg(long, env = "BACKSTOP_RESPONSE_KEEP_ALIVE", value_parser = parse_duration)]
    pub(crate) response_keep_alive: Option<Duration>,
}

/// How much may wait.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Queue")]
pub(crate) struct QueueArgs {
    /// Requests that wait for a place at most; more are answered with 429.
    #[arg(long, env = "BACKSTOP_MAX_NUM_QUEUED_REQS", default_value = "128")]
    pub(crate) max_num_queued_reqs: u32,

    /// Prompt tokens of waiting requests at most; more are answered with 429. [default: no limit]
    #[arg(long, env = "BACKSTOP_MAX_NUM_QUEUED_TOKENS")]
    pub(crate) max_num_queued_tokens: Option<u64>,

    /// Longest wait for a place, such as 90s; then the answer is 503.
    #[arg(long, env = "BACKSTOP_QUEUE_TIMEOUT", value_parser = parse_duration, default_value = "30s")]
    pub(crate) queue_timeout: Duration,

    /// Which limits hold for the queue; SIGUSR1 switches a running server to `outage`, SIGUSR2 back.
    #[arg(long, env = "BACKSTOP_ADMISSION_PROFILE", default_value = "normal")]
    pub(crate) admission_profile: ProfileChoice,

    /// --max-num-queued-reqs in an outage.
    #[arg(
        long,
        env = "BACKSTOP_OUTAGE_MAX_NUM_QUEUED_REQS",
        default_value = "1024"
    )]
    pub(crate) outage_max_num_queued_reqs: u32,

    /// --queue-timeout in an outage.
    #[arg(long, env = "BACKSTOP_OUTAGE_QUEUE_TIMEOUT", value_parser = parse_duration, default_value = "300s")]
    pub(crate) outage_queue_timeout: Duration,

    /// Longest answer, in an outage, to requests that do not say how long it may be. [default: what
    /// the context has room for]
    #[arg(long, env = "BACKSTOP_OUTAGE_DEFAULT_MAX_TOKENS")]
    pub(crate) outage_default_max_tokens: Option<u32>,
}

/// Which limits hold for the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileChoice {
    /// A short queue, so that gateways go elsewhere.
    Normal,
    /// Nobody else is left: a long queue, shared equally between keys, and no batch requests.
    Outage,
}

/// What becomes of content that the model cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContentChoice {
    /// The request is answered with 400.
    Refuse,
    /// A note stands in their place, as it always does in earlier turns and in the results of tools.
    Note,
}

impl ContentChoice {
    /// The same for the server.
    pub(crate) fn policy(self) -> UnsupportedContent {
        match self {
            Self::Refuse => UnsupportedContent::Refuse,
            Self::Note => UnsupportedContent::Note,
        }
    }
}
