//! `backstop serve`: listens at once, loads, proves the model, answers, drains.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use backstop_engine::{EngineHandle, EngineThread, Lifecycle, LifecycleState};
use backstop_server::{
    GrammarWorker, KeySet, ModelFacts, ProbeThread, ServedModel, Server, ServerConfig,
};
use backstop_text::{ChatFormat, ControlTexts};
use backstop_types::TokenId;
use backstop_weights::Canary;
use tokio::net::TcpListener;

use crate::args::{KvCacheDtype, ModelArgs, ServeArgs};
use crate::load::{self, ModelText, OpenModel};
use crate::provenance::provenance;
use crate::queue::Queues;
use crate::start::{self, Prepared};
use crate::warm_up::warm_up;
use crate::{EXIT_ENGINE_FAILED, browsers, descriptors, facts, settings, signals};

/// One address's strangers get one in so many of the connections.
const STRANGERS_SHARE: usize = 4;
/// What helps anybody: from what a network takes to what any client waits.
const RESPONSE_KEEP_ALIVE_RANGE: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(3600));

pub(crate) fn run(args: ServeArgs) -> Result<ExitCode, String> {
    let started = Instant::now();
    let args = settings::with_file(args)?;
    crate::runtime()?.block_on(serve(args, started))
}

async fn serve(args: ServeArgs, started: Instant) -> Result<ExitCode, String> {
    // The text files are read and memory is planned before the port is bound: a mistyped model
    // name, or a model that does not fit, should be an error message, not a server that is loading
    // for ever.
    let open = load::open(&args.model)?;
    let prepared = Prepared::new(&args.model, &open)?;
    let queues = Queues::new(&args.queue)?;
    let max_waiting = queues.engine_max_waiting(prepared.limits.sizes.max_num_seqs);
    let names = served_names(&args, &open);
    let mut config = server_config(&args, queues, names.clone())?;
    config.provenance = provenance(&args, &open, &prepared)?;
    let listener = listen(&args)?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    tracing::info!("listening on http://{address}, loading {}", open.name);

    let lifecycle = Lifecycle::new();
    let server = Server::new(config, lifecycle.clone());
    // Until the end of this function: a server that drains is well.
    let _probes = serve_probes(&args, &server)?;
    signals::obey(&server, args.callers.api_key_file.is_some());
    let loading = tokio::spawn({
        let (server, lifecycle, args) = (server.clone(), lifecycle.clone(), args.model.clone());
        async move {
            match bring_up(args, open, prepared, max_waiting, &server).await {
                Ok(thread) => {
                    lifecycle.advance(LifecycleState::Ready);
                    announce(address, &names, started.elapsed());
                    Some(thread)
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

/// Loads, warms up and installs the model.
async fn bring_up(
    args: ModelArgs,
    open: OpenModel,
    prepared: Prepared,
    max_waiting: u32,
    server: &Server,
) -> Result<EngineThread, String> {
    let canary = comparable_canary(&args, &open);
    let prompt = open.warm_up_prompt()?;
    let identity = ModelIdentity::of(&open, &prepared)?;
    let lifecycle = server.lifecycle().clone();
    let running = tokio::task::spawn_blocking(move || {
        start::start(&args, open, prepared, max_waiting, &lifecycle)
    })
    .await
    .map_err(|error| format!("loading panicked: {error}"))??;
    server.lifecycle().advance(LifecycleState::Warming);
    warm_up(&running.engine, canary.as_ref(), &prompt).await?;
    server.install(identity.served(running.engine, running.max_model_len));
    Ok(running.thread)
}

/// The recorded answer, unless the settings change what the model computes.
fn comparable_canary(args: &ModelArgs, open: &OpenModel) -> Option<Canary> {
    let canary = open
        .manifest
        .as_ref()
        .and_then(|manifest| manifest.canary.clone())?;
    let changed = if args.hf_overrides.is_some() {
        "--hf-overrides"
    } else if args.kv_cache_dtype == Some(KvCacheDtype::Fp8) {
        "--kv-cache-dtype fp8"
    } else {
        return Some(canary);
    };
    tracing::warn!("{changed} changes the answers: the recorded canary is not compared");
    None
}

/// What the server tells of a model and needs for its texts.
struct ModelIdentity {
    text: ModelText,
    chat_format: &'static ChatFormat,
    control_texts: Arc<ControlTexts>,
    vocab_size: u32,
    root: String,
    facts: ModelFacts,
}

impl ModelIdentity {
    fn of(open: &OpenModel, prepared: &Prepared) -> Result<Self, String> {
        let repository = open
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.repository.clone());
        let template = open
            .text
            .template
            .as_ref()
            .map(|template| template.source());
        let controls = ControlTexts::new(&open.text.tokenizer, open.chat_format, template);
        let controls = controls.map_err(|error| format!("tokenizer of {}: {error}", open.name))?;
        Ok(Self {
            text: open.text.clone(),
            chat_format: open.chat_format,
            control_texts: Arc::new(controls),
            vocab_size: open.spec().vocabulary_size,
            root: repository.unwrap_or_else(|| open.name.clone()),
            facts: facts::of(open, prepared),
        })
    }

    fn served(self, engine: EngineHandle, max_model_len: u32) -> ServedModel {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let is_known = |token: &TokenId| *token < self.vocab_size;
        let fim = self.text.fim.filter(|fim| fim.ends().iter().all(is_known));
        ServedModel {
            chat_format: self.chat_format,
            control_texts: self.control_texts,
            tokenizer: self.text.tokenizer,
            template: self.text.template,
            eos_token_ids: self.text.eos_token_ids,
            bos_token: self.text.bos_token,
            eos_token: self.text.eos_token,
            pad_token: self.text.pad_token,
            fim: fim.map(Arc::new),
            defaults: self.text.defaults,
            max_model_len,
            vocab_size: self.vocab_size,
            engine,
            root: self.root,
            facts: self.facts,
            created_s: now.map_or(0, |since| since.as_secs()),
        }
    }
}

fn served_names(args: &ServeArgs, open: &OpenModel) -> Vec<String> {
    let asked = &args.server.served_model_name;
    if asked.is_empty() {
        vec![open.name.clone()]
    } else {
        asked.clone()
    }
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
fn announce(address: SocketAddr, names: &[String], elapsed: Duration) {
    let name = names
        .iter()
        .find(|name| *name != "*")
        .map_or("any", String::as_str);
    tracing::info!(
        "ready after {:.1} s: curl http://{address}/v1/chat/completions -H 'content-type: \
         application/json' -d '{{\"model\": \"{name}\", \"messages\": [{{\"role\": \"user\", \
         \"content\": \"Hello\"}}]}}'",
        elapsed.as_secs_f32()
    );
}

/// Resolves when the server should drain: on SIGTERM or Ctrl-C, or when the engine has failed.
async fn end_of_service(lifecycle: Lifecycle) {
    let failed = lifecycle.wait_for(|state| matches!(state, LifecycleState::Failed(_)));
    tokio::select! {
        () = signals::end() => {}
        _ = failed => {}
    }
}
