//! `backstop serve`: listens at once, loads, proves the model, answers, drains.

mod generating;
mod models;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use backstop_engine::{Lifecycle, LifecycleState};
use backstop_sandbox::FilesConfinement;
use backstop_server::{GrammarWorker, KeySet, ProbeThread, Server, ServerConfig};
use tokio::net::TcpListener;

use self::models::{Example, Models};
use crate::args::ServeArgs;
use crate::queue::Queues;
use crate::{EXIT_ENGINE_FAILED, browsers, descriptors, sandbox, settings, signals};

/// One address's strangers get one in so many of the connections.
const STRANGERS_SHARE: usize = 4;
/// What helps anybody: from what a network takes to what any client waits.
const RESPONSE_KEEP_ALIVE_RANGE: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(3600));

pub(crate) fn run(args: ServeArgs) -> Result<ExitCode, String> {
    let started = Instant::now();
    let args = settings::with_file(args)?;
    // It binds this thread and those that it starts, so it comes before the runtime's.
    let files = sandbox::confine_files(&args)?;
    crate::runtime()?.block_on(serve(args, files, started))
}

async fn serve(
    args: ServeArgs,
    files: Option<FilesConfinement>,
    started: Instant,
) -> Result<ExitCode, String> {
    // The text files are read and memory is planned before the port is bound: a mistyped model
    // name, or a model that does not fit, should be an error message, not a server that is loading
    // for ever.
    let queues = Queues::new(&args.queue)?;
    let models = Models::open(&args, &queues)?;
    let mut config = server_config(&args, queues, models.served_model_names())?;
    config.provenance = models.provenance();
    let listener = listen(&args)?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    tracing::info!("listening on http://{address}, loading {}", models.names());

    let lifecycle = Lifecycle::new();
    let server = Server::new(config, lifecycle.clone());
    // Until the end of this function: a server that drains is well.
    let _probes = serve_probes(&args, &server)?;
    // Now that it listens, it needs no other socket. What a GPU's driver calls until the model is there is the
    // driver's affair.
    let on_gpu = models.on_gpu();
    if !on_gpu {
        sandbox::confine_calls(files.as_ref())?;
    }
    signals::obey(&server, args.callers.api_key_file.is_some());
    let loading = tokio::spawn({
        let (server, lifecycle) = (server.clone(), lifecycle.clone());
        async move {
            let examples = models.examples();
            let brought_up = models.bring_up(&server).await.and_then(|thread| {
                if on_gpu {
                    sandbox::confine_calls(files.as_ref())?;
                }
                Ok(thread)
            });
            match brought_up {
                Ok(thread) => {
                    lifecycle.advance(LifecycleState::Ready);
                    announce(address, &examples, started.elapsed());
                    thread
                }
                Err(message) => {
                    lifecycle.advance(LifecycleState::Failed(message));
                    None
                }
            }
        }
    });
    let served = backstop_server::serve(server, listener, end_of_service(lifecycle.clone())).await;
    if let Ok(Some(thread)) = loading.await {
        thread.stop();
    }
    served.map_err(|error| format!("the server ended: {error}"))?;
    match lifecycle.state() {
        LifecycleState::Failed(reason) => {
            tracing::error!("{reason}");
            Ok(ExitCode::from(EXIT_ENGINE_FAILED))
        }
        _ => {
            lifecycle.advance(LifecycleState::Stopped);
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The present, in seconds since 1970.
pub(crate) fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

fn server_config(
    args: &ServeArgs,
    queues: Queues,
    served_model_names: Vec<String>,
) -> Result<ServerConfig, String> {
    let (callers, answers) = (&args.callers, &args.answers);
    let keys = callers.api_key_file.as_deref().map(KeySet::from_file);
    let keys = keys.transpose();
    let defaults = ServerConfig::default();
    let max_connections = descriptors::for_connections(defaults.max_connections);
    Ok(ServerConfig {
        served_model_names,
        api_keys: keys.map_err(|error| error.to_string())?,
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
        drain_timeout: args.server.shutdown_timeout,
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

fn listen(args: &ServeArgs) -> Result<TcpListener, String> {
    let host = args.server.host;
    let address = SocketAddr::new(host, args.server.port);
    if !host.is_loopback() && args.callers.api_key_file.is_none() {
        tracing::warn!(
            "listening on {host} without --api-key-file: anybody who reaches it is served"
        );
    }
    backstop_server::listen(address).map_err(|error| {
        format!("cannot listen on {address}: {error}; choose another with --host or --port")
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

/// The one line that says that everything works, and how to try it.
fn announce(address: SocketAddr, examples: &[Example], elapsed: Duration) {
    let try_it = |(path, body): &Example| {
        format!("curl http://{address}{path} -H 'content-type: application/json' -d '{body}'")
    };
    let try_it: Vec<String> = examples.iter().map(try_it).collect();
    let seconds = elapsed.as_secs_f32();
    tracing::info!("ready after {seconds:.1} s: {}", try_it.join(" or "));
}

/// Resolves when the server should drain: on SIGTERM or Ctrl-C, or when the engine has failed.
async fn end_of_service(lifecycle: Lifecycle) {
    let failed = lifecycle.wait_for(|state| matches!(state, LifecycleState::Failed(_)));
    tokio::select! {
        () = signals::end() => {}
        _ = failed => {}
    }
}
