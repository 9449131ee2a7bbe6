//! `backstop serve`: listens at once, loads, proves the model, answers, drains.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use backstop_engine::{EngineThread, Lifecycle, LifecycleState};
use backstop_server::{GenerationDefaults, KeySet, ServedModel, Server, ServerConfig};
use tokio::net::TcpListener;

use crate::args::ServeArgs;
use crate::load::{self, OpenModel, RunningModel};
use crate::warm_up::warm_up;
use crate::{EXIT_ENGINE_FAILED, settings};

const DEFAULT_PORT: u16 = 8000;
const DEFAULT_MAX_QUEUED: u32 = 512;
const DEFAULT_QUEUE_TIMEOUT: Duration = Duration::from_secs(120);
const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest queue that can be asked for.
const MAX_QUEUED: u32 = 65_536;

pub(crate) fn run(args: ServeArgs) -> Result<ExitCode, String> {
    let started = Instant::now();
    let args = settings::with_file(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(serve(args, started))
}

async fn serve(args: ServeArgs, started: Instant) -> Result<ExitCode, String> {
    // The text files are read before the port is bound: a mistyped model name should be an error
    // message, not a server that is loading.
    let open = load::open(&args.model)?;
    let config = server_config(&args, &open)?;
    let max_waiting = max_waiting(&args)?;
    let listener = listen(&args).await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    tracing::info!("listening on http://{address}, loading {}", open.name);

    let lifecycle = Lifecycle::new();
    let server = Server::new(config, lifecycle.clone());
    let name = served_name(&args, &open);
    let loading = {
        let (server, lifecycle) = (server.clone(), lifecycle.clone());
        let model_args = args.model.clone();
        tokio::spawn(async move {
            let result = bring_up(model_args, open, max_waiting, &server, &lifecycle).await;
            match result {
                Ok(thread) => {
                    lifecycle.advance(LifecycleState::Ready);
                    announce(address, &name, started.elapsed());
                    Some(thread)
                }
                Err(message) => {
                    lifecycle.advance(LifecycleState::Failed(message));
                    None
                }
            }
        })
    };
    let end = end_of_service(lifecycle.clone());
    let served = backstop_server::serve(server, listener, end).await;
    finish(loading, &lifecycle).await?;
    served.map_err(|error| format!("the server ended: {error}"))?;
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

/// Loads, warms up and installs the model.
async fn bring_up(
    args: crate::args::ModelArgs,
    open: OpenModel,
    max_waiting: u32,
    server: &Server,
    lifecycle: &Lifecycle,
) -> Result<EngineThread, String> {
    let canary = open.manifest.as_ref().and_then(|manifest| manifest.canary.clone());
    let prompt = open.warm_up_prompt()?;
    let served = ServedParts::of(&open);
    let loading_lifecycle = lifecycle.clone();
    let running = tokio::task::spawn_blocking(move || {
        load::start(&args, open, max_waiting, &loading_lifecycle)
    })
    .await
    .map_err(|error| format!("loading panicked: {error}"))??;
    lifecycle.advance(LifecycleState::Warming);
    warm_up(&running.engine, canary.as_ref(), &prompt).await?;
    let RunningModel { engine, thread, max_model_len } = running;
    server.install(served.into_model(engine, max_model_len));
    Ok(thread)
}

/// What the server needs of a model besides its engine.
struct ServedParts {
    model: Box<dyn FnOnce(backstop_engine::EngineHandle, u32) -> ServedModel + Send>,
}
