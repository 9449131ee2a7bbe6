//! `backstop serve`: listens at once, loads, proves the model, answers, drains.

mod generating;
mod models;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use backstop_audit::{AuditLog, AuditRecorder};
use backstop_engine::{EngineThread, Lifecycle, LifecycleState, StartPhase, Timeline};
use backstop_sandbox::FilesConfinement;
use backstop_server::{GrammarWorker, KeySet, ProbeThread, Server, ServerConfig, SocketFile};
use tokio::sync::Notify;

use self::models::{Example, Models};
use crate::args::ServeArgs;
use crate::control::{ControlSocket, Controlled};
use crate::listening::{self, Listening};
use crate::notify::ServiceManager;
use crate::queue::Queues;
use crate::standby::{CanaryFile, Standby};
use crate::traces::{self, ExporterProcess};
use crate::watchdog::{self, Watchdog};
use crate::{
    EXIT_ENGINE_FAILED, EXIT_STALLED, audit, browsers, descriptors, logging, sandbox, settings,
    signals, weight_cache,
};

/// How long the last traces may take on their way.
const TRACES_GRACE: Duration = Duration::from_secs(5);
/// One address's strangers get one in so many of the connections.
const STRANGERS_SHARE: usize = 4;
/// What is left to be done when the server has ended gets so long.
const RUNTIME_END: Duration = Duration::from_secs(1);
/// What helps anybody: from what a network takes to what any client waits.
const RESPONSE_KEEP_ALIVE_RANGE: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(3600));

pub(crate) fn run(args: ServeArgs) -> Result<ExitCode, String> {
    let lifecycle = Lifecycle::since(Instant::now());
    let args = settings::with_file(args)?;
    logging::start(&args.log);
    weight_cache::make_directory(&args)?;
    let control = args.standby.control_socket.as_deref();
    // Opened, made and started while this process may still connect, make files and start others.
    let outside = Outside {
        manager: ServiceManager::from_environment(),
        socket_file: listening::socket_file(&args)?,
        control: control.map(ControlSocket::bind).transpose()?,
        canary_file: CanaryFile::of(&args),
        trace_exporter: traces::start_process(&args)?,
    };
    // It binds this thread and those that it starts, so it comes before the runtime's.
    let files = sandbox::confine_files(&args)?;
    let log = audit::open(&args.audit)?;
    let recorder = log.as_ref().map(AuditLog::recorder);
    // The runtime is gone before the log is closed: what it still runs then is recorded as well.
    let runtime = crate::runtime()?;
    let ended = runtime.block_on(serve(args, outside, files, recorder, lifecycle));
    // Not for longer: a thread that reads a file may hang with the file's storage.
    runtime.shutdown_timeout(RUNTIME_END);
    if let Some(log) = log {
        log.close(match &ended {
            Ok(code) if *code == ExitCode::SUCCESS => "stopped",
            Ok(_) => "failed",
            Err(_) => "refused",
        });
    }
    ended
}

/// What is there before the process is confined, and could not be made later.
struct Outside {
    manager: ServiceManager,
    socket_file: Option<SocketFile>,
    control: Option<ControlSocket>,
    canary_file: Option<CanaryFile>,
    trace_exporter: Option<ExporterProcess>,
}

async fn serve(
    args: ServeArgs,
    outside: Outside,
    files: Option<FilesConfinement>,
    audit_log: Option<AuditRecorder>,
    lifecycle: Lifecycle,
) -> Result<ExitCode, String> {
    let queues = Queues::new(&args.queue)?;
    let traces = traces::start(&args, outside.trace_exporter)?;
    let config = ServerConfig {
        audit_log,
        traces: traces.clone(),
        ..server_config(&args, &queues)?
    };
    lifecycle.timeline().begin(StartPhase::Listening);
    let listening = Listening::start(&args, outside.socket_file, config.tls.as_deref())?;
    tracing::info!("listening on {}", listening.names());
    let (listeners, curl) = listening.parts();

    let server = Server::new(config, lifecycle.clone());
    let watchdog = Watchdog::start(&server)
        .map_err(|error| format!("there is no thread to watch over the server: {error}"))?;
    // Until the end of this function: a server that drains is well.
    let _probes = serve_probes(&args, &server)?;
    let follows_files = args.callers.api_key_file.is_some() || args.tls.ssl_certfile.is_some();
    signals::obey(&server, &outside.manager, follows_files);
    let reporting = tokio::spawn(outside.manager.follow(server.clone()));
    let standby = Arc::new(OnceLock::new());
    let end = Arc::new(Notify::new());
    if let Some(socket) = outside.control {
        let controlled = Controlled {
            server: server.clone(),
            standby: Arc::clone(&standby),
            end: Arc::clone(&end),
            started: Instant::now(),
        };
        tokio::spawn(controlled.answer_at(socket));
    }
    let (canary_interval, canary_file) = (args.standby.canary_interval, outside.canary_file);
    // Probes are answered from here on, however long a model's files take to read.
    let loading = tokio::spawn({
        let (server, lifecycle) = (server.clone(), lifecycle.clone());
        async move {
            let loaded = load(args, queues, &server, (files, canary_file)).await;
            match &loaded {
                Ok(loaded) => {
                    server.record_models();
                    lifecycle.advance(LifecycleState::Ready);
                    announce(&curl, &loaded.examples, lifecycle.timeline());
                    if let Some((_, standing_by)) = &loaded.generating {
                        stand_by(standing_by, canary_interval);
                        let _ = standby.set(Arc::clone(standing_by));
                    }
                }
                Err(NotLoaded::Refused(message) | NotLoaded::Failed(message)) => {
                    lifecycle.advance(LifecycleState::Failed(message.clone()));
                }
            }
            loaded
        }
    });
    let ended = end_of_service(lifecycle.clone(), end);
    let served = backstop_server::serve(server, listeners, ended).await;
    if watchdog.has_struck().await {
        tracing::error!("ending with {EXIT_STALLED}, for another process to take over");
        return Ok(ExitCode::from(EXIT_STALLED));
    }
    if let Some(traces) = traces {
        let finish = move || traces.finish(TRACES_GRACE);
        // What is late is lost.
        let _ignored = tokio::task::spawn_blocking(finish).await;
    }
    // Asked to end before the models are there, nobody waits for them: what reads them may hang.
    if lifecycle.state() != LifecycleState::Draining || loading.is_finished() {
        match loading.await {
            Ok(Ok(loaded)) => loaded.stop(),
            // A mistyped name, or a model that does not fit, is an error message.
            Ok(Err(NotLoaded::Refused(message))) => return Err(message),
            // It is the state of the life-cycle.
            Ok(Err(NotLoaded::Failed(_))) => {}
            Err(error) => return Err(format!("loading panicked: {error}")),
        }
    }
    served.map_err(|error| format!("the server ended: {error}"))?;
    lifecycle.advance(LifecycleState::Stopped);
    // It ends with the life of the server, and what it says last must not be cut off.
    let _ignored = reporting.await;
    match lifecycle.state() {
        LifecycleState::Failed(reason) => {
            tracing::error!("{reason}");
            Ok(ExitCode::from(EXIT_ENGINE_FAILED))
        }
        _ => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Models that answer.
struct Loaded {
    examples: Vec<Example>,
    generating: Option<(EngineThread, Arc<Standby>)>,
}

impl Loaded {
    fn stop(self) {
        if let Some((engine, _)) = self.generating {
            engine.stop();
        }
    }
}

/// Why models do not answer.
enum NotLoaded {
    /// By what the settings and the models' text files say, they cannot be served.
    Refused(String),
    /// Something went wrong while they were loaded.
    Failed(String),
}

/// Opens, loads and proves the models.
async fn load(
    args: ServeArgs,
    queues: Queues,
    server: &Server,
    (files, canary_file): (Option<FilesConfinement>, Option<CanaryFile>),
) -> Result<Loaded, NotLoaded> {
    // Text files are read and memory is planned: nothing for a thread that answers.
    let timeline = server.lifecycle().timeline().clone();
    let opened = tokio::task::spawn_blocking(move || Models::open(&args, &queues, &timeline)).await;
    let opened = opened.map_err(|error| NotLoaded::Failed(format!("opening panicked: {error}")))?;
    let models = opened.map_err(NotLoaded::Refused)?;
    tracing::info!("loading {}", models.names());
    let confine = || sandbox::confine_calls(files.as_ref()).map_err(NotLoaded::Failed);
    // What a GPU's driver calls until the model is there is the driver's affair.
    let on_gpu = models.on_gpu();
    if !on_gpu {
        confine()?;
    }
    let examples = models.examples();
    let generating = models.bring_up(server, canary_file).await;
    let generating = generating.map_err(NotLoaded::Failed)?;
    if on_gpu {
        confine()?;
    }
    Ok(Loaded {
        examples,
        generating: generating.map(|(engine, standby)| (engine, Arc::new(standby))),
    })
}

/// The present, in seconds since 1970.
pub(crate) fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

fn server_config(args: &ServeArgs, queues: &Queues) -> Result<ServerConfig, String> {
    let (callers, answers) = (&args.callers, &args.answers);
    let keys = callers.api_key_file.as_deref().map(KeySet::from_file);
    let keys = keys.transpose();
    let defaults = ServerConfig::default();
    let max_connections = descriptors::for_connections(defaults.max_connections);
    Ok(ServerConfig {
        api_keys: keys.map_err(|error| error.to_string())?,
        public_metrics: callers.public_metrics,
        tls: listening::tls(args)?,
        cors: browsers::cors(callers)?,
        allow_priority: callers.allow_priority,
        allow_special_tokens_in_content: answers.allow_special_tokens_in_content,
        unsupported_content: answers.unsupported_content.policy(),
        share_prefix_cache: callers.share_prefix_cache,
        admission_profile: queues.profile,
        normal: queues.normal,
        outage: queues.outage,
        max_queued_tokens: args.queue.max_num_queued_tokens,
        grammar_worker: grammar_worker(),
        response_keep_alive: response_keep_alive(args)?,
        watchdog_timeout: watchdog_timeout(args)?,
        drain_timeout: args.server.shutdown_timeout,
        wake_on_request: args.standby.wake_on_request,
        max_connections,
        max_stranger_connections_per_address: (max_connections / STRANGERS_SHARE).max(1),
        ..defaults
    })
}

/// When answers that are not streamed give a sign of life, if at all.
fn response_keep_alive(args: &ServeArgs) -> Result<Option<Duration>, String> {
    let (least, most) = RESPONSE_KEEP_ALIVE_RANGE;
    match args.answers.response_keep_alive {
        Some(interval) if !(least..=most).contains(&interval) => Err(format!(
            "--response-keep-alive must lie between {least:?} and {most:?}"
        )),
        interval => Ok(interval),
    }
}

/// How long there may be work without progress.
fn watchdog_timeout(args: &ServeArgs) -> Result<Duration, String> {
    let (least, most) = watchdog::TIMEOUT_RANGE;
    let timeout = args.server.watchdog_timeout;
    match (least..=most).contains(&timeout) {
        true => Ok(timeout),
        false => Err(format!(
            "--watchdog-timeout must lie between {least:?} and {most:?}"
        )),
    }
}

/// This program once more. On Linux it is found even after another version has taken its place,
/// which would read other recipes.
fn grammar_worker() -> Option<GrammarWorker> {
    let own = PathBuf::from("/proc/self/exe");
    let program = match own.exists() {
        true => own,
        false => std::env::current_exe()
            .inspect_err(|error| tracing::warn!(%error, "grammars are compiled untried"))
            .ok()?,
    };
    Some(GrammarWorker {
        program,
        arguments: vec!["grammar-worker".to_owned()],
    })
}

/// Answers probes on an address of their own, if one is asked for.
fn serve_probes(args: &ServeArgs, server: &Server) -> Result<Option<ProbeThread>, String> {
    let Some(address) = args.server.probe_address else {
        return Ok(None);
    };
    let listener = backstop_server::listen(address).map_err(|error| {
        format!("cannot listen on {address}: {error}; choose another with --probe-address")
    })?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let probes = backstop_server::serve_probes(server, listener)
        .map_err(|error| format!("cannot answer probes on {address}: {error}"))?;
    tracing::info!("answering probes on http://{address}");
    Ok(Some(probes))
}

/// The lines that say that everything works, how to try it, and what the start took its time for.
fn announce(curl: &str, examples: &[Example], timeline: &Timeline) {
    let try_it = |(path, body): &Example| {
        format!("curl {curl}{path} -H 'content-type: application/json' -d '{body}'")
    };
    let try_it: Vec<String> = examples.iter().map(try_it).collect();
    let seconds = timeline.total().as_secs_f32();
    tracing::info!("start: {timeline}");
    tracing::info!("ready after {seconds:.1} s: {}", try_it.join(" or "));
}

/// Keeps the model ready for as long as the process lives.
fn stand_by(standby: &Arc<Standby>, canary_interval: Duration) {
    let (proving, waking) = (Arc::clone(standby), Arc::clone(standby));
    tokio::spawn(async move { proving.keep_proving(canary_interval).await });
    tokio::spawn(async move { waking.wake_on_requests().await });
}

/// Resolves when the server should drain: on SIGTERM or Ctrl-C, when somebody asks for it over the control socket, or when
/// the engine has failed.
async fn end_of_service(lifecycle: Lifecycle, end: Arc<Notify>) {
    let failed = lifecycle.wait_for(|state| matches!(state, LifecycleState::Failed(_)));
    tokio::select! {
        () = signals::end() => {}
        () = end.notified() => {}
        _ = failed => {}
    }
}
