//! A server on a socket with an engine whose executor speaks a fixed script, and a small client.

pub(crate) mod client;
pub(crate) mod encoder;
pub(crate) mod executor;
pub(crate) mod vocabulary;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use backstop_engine::{EngineConfig, EngineHandle, EngineThread, Lifecycle, LifecycleState};
use backstop_server::{
    GenerationDefaults, ModelFacts, Provenance, ServedEncoder, ServedModel, Server, ServerConfig,
};
use backstop_text::{ChatTemplates, ControlTexts, FimTokens, chat_format};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::client::Client;
use self::encoder::FakeEncoder;
use self::executor::{Script, ScriptedExecutor};
use self::vocabulary::{EOS, VOCAB_SIZE, tokenizer};

/// Prompt and answer together.
pub(crate) const MAX_MODEL_LEN: u32 = 2048;

const PLAIN_TEMPLATE: &str = "{% for m in messages %}{% if 'refusal' in m.content %}\
                              {{ raise_exception('No words like ' + m.content + ' here') }}\
                              {% endif %}[{{ m.role }}]{{ m.content }}[end]\
                              {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
const REASONING_TEMPLATE: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\
                                  {% endfor %}{% if add_generation_prompt %}<|START_THINKING|>\
                                  {% if reasoning is defined and not reasoning %}\
                                  <|END_THINKING|>{% endif %}{% endif %}";

/// What a test wants of its server.
pub(crate) struct Options {
    /// What the model says.
    pub(crate) script: Script,
    /// Names under which the model is served.
    pub(crate) names: Vec<&'static str>,
    /// Where the model's answers come from.
    pub(crate) provenance: Provenance,
    /// The HTTP side.
    pub(crate) config: ServerConfig,
    /// Sequences that run at once.
    pub(crate) max_num_seqs: u32,
    /// Sequences that wait.
    pub(crate) max_waiting: u32,
    /// Use the format with reasoning and tool calls.
    pub(crate) reasoning: bool,
    /// Another chat template than the usual one.
    pub(crate) template: Option<&'static str>,
    /// Chat templates beside that, by name; one without a text is not there.
    pub(crate) named_templates: &'static [(&'static str, &'static str)],
    /// Prompt and answer together.
    pub(crate) max_model_len: u32,
    /// The model fills in the middle.
    pub(crate) fills_in: bool,
    /// Encoders, with the names under which they are served.
    pub(crate) encoders: Vec<(&'static str, Arc<FakeEncoder>)>,
    /// Serve the encoders alone.
    pub(crate) only_encoders: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            script: Script::says("Hello, world!"),
            names: vec!["north", "*"],
            provenance: Provenance::default(),
            config: ServerConfig::default(),
            max_num_seqs: 8,
            max_waiting: 128,
            reasoning: false,
            template: None,
            named_templates: &[],
            max_model_len: MAX_MODEL_LEN,
            fills_in: false,
            encoders: Vec::new(),
            only_encoders: false,
        }
    }
}

impl Options {
    /// The defaults, with this script.
    pub(crate) fn script(script: Script) -> Self {
        Self {
            script,
            ..Self::default()
        }
    }

    /// The defaults, with an encoder for vectors, called `vectors`, and one for scores, called `scores`.
    pub(crate) fn encoding(vectors: &Arc<FakeEncoder>, scores: &Arc<FakeEncoder>) -> Self {
        Self {
            encoders: vec![
                ("vectors", Arc::clone(vectors)),
                ("scores", Arc::clone(scores)),
            ],
            ..Self::default()
        }
    }

    /// The defaults, served under this name alone.
    pub(crate) fn named(name: &'static str) -> Self {
        Self {
            names: vec![name],
            ..Self::default()
        }
    }

    /// The same, with a changed configuration.
    pub(crate) fn config(mut self, change: impl FnOnce(&mut ServerConfig)) -> Self {
        change(&mut self.config);
        self
    }
}

/// A running server.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) engine: EngineHandle,
    pub(crate) address: SocketAddr,
    pub(crate) serving: JoinHandle<std::io::Result<()>>,
    shutdown: Option<oneshot::Sender<()>>,
    engine_thread: Option<EngineThread>,
}

impl Fixture {
    /// A server that is ready.
    pub(crate) async fn ready(options: Options) -> Self {
        let fixture = Self::loading(options).await;
        fixture.lifecycle.advance(LifecycleState::Ready);
        fixture
    }

    /// A server that says it is loading, although its model is there.
    pub(crate) async fn loading(options: Options) -> Self {
        let lifecycle = Lifecycle::new();
        let executor = ScriptedExecutor::new(options.script.clone());
        let config = EngineConfig {
            max_num_seqs: options.max_num_seqs,
            max_num_batched_tokens: 4096,
            max_waiting: options.max_waiting,
            max_model_len: options.max_model_len,
            enable_prefix_caching: true,
            max_step_failures: 2,
            speculation: None,
        };
        let (engine, engine_thread) =
            EngineThread::spawn(&config, Box::new(executor), lifecycle.clone()).unwrap();
        let model = model(engine.clone(), &options);
        let server = Server::new(options.config, lifecycle.clone());
        if !options.only_encoders {
            server.install(model);
        }
        for (name, encoder) in options.encoders {
            server.install_encoder(served(name, encoder)).unwrap();
        }
        let (address, serving, shutdown) = listen(&server).await;
        Self {
            server,
            lifecycle,
            engine,
            address,
            serving,
            shutdown: Some(shutdown),
            engine_thread: Some(engine_thread),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Begins a shutdown.
    pub(crate) fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits until the engine has nothing to do, or fails the test.
    pub(crate) async fn engine_idle(&self) {
        eventually("the engine is idle", || {
            let stats = self.engine.stats().scheduler;
            stats.running == 0 && stats.waiting == 0
        })
        .await;
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.serving.abort();
        if let Some(thread) = self.engine_thread.take() {
            thread.stop();
        }
    }
}

async fn listen(
    server: &Server,
) -> (
    SocketAddr,
    JoinHandle<std::io::Result<()>>,
    oneshot::Sender<()>,
) {
    let listener = backstop_server::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = oneshot::channel();
    let shutdown = async move {
        if receiver.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let serving = tokio::spawn(backstop_server::serve(
        server.clone(),
        vec![listener.into()],
        shutdown,
    ));
    (address, serving, sender)
}

fn model(engine: EngineHandle, options: &Options) -> ServedModel {
    let (source, format) = match options.reasoning {
        true => (REASONING_TEMPLATE, "cohere_cmd4"),
        false => (PLAIN_TEMPLATE, "plain"),
    };
    let source = options.template.unwrap_or(source);
    let (tokenizer, format) = (tokenizer(), chat_format(format).unwrap());
    let control_texts = ControlTexts::new(&tokenizer, format, &[source]).unwrap();
    let fim = FimTokens::detect(&tokenizer).filter(|_| options.fills_in);
    ServedModel {
        tokenizer: Arc::new(tokenizer),
        templates: Some(Arc::new(templates(source, options.named_templates))),
        chat_format: format,
        control_texts: Arc::new(control_texts),
        fim: fim.map(Arc::new),
        eos_token_ids: vec![EOS],
        bos_token: String::new(),
        eos_token: "<|END_OF_TURN_TOKEN|>".into(),
        pad_token: None,
        defaults: GenerationDefaults::default(),
        max_model_len: options.max_model_len,
        vocab_size: VOCAB_SIZE,
        engine,
        names: options.names.iter().map(ToString::to_string).collect(),
        root: "test/model".into(),
        provenance: options.provenance.clone(),
        created_s: 1,
        facts: ModelFacts::default(),
    }
}

fn templates(source: &str, named: &[(&str, &str)]) -> ChatTemplates {
    let mut sources = BTreeMap::from([("default", source)]);
    sources.extend(named.iter().copied());
    let owned = |(name, source): (&str, &str)| (name.to_owned(), source.to_owned());
    let mut sources: BTreeMap<String, String> = sources.into_iter().map(owned).collect();
    sources.retain(|_, source| !source.is_empty());
    ChatTemplates::from_sources(&sources).unwrap().unwrap()
}

fn served(name: &str, encoder: Arc<FakeEncoder>) -> ServedEncoder {
    ServedEncoder {
        encoder,
        names: vec![name.to_owned()],
        root: format!("test/{name}"),
        created_s: 1,
        provenance: Provenance::new(name, "0123", "4567"),
    }
}

/// Waits up to ten seconds for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true that {what}");
}

/// A chat with one message.
pub(crate) fn chat(extra: Value) -> Value {
    merged(
        json!({"model": "north", "messages": [{"role": "user", "content": "Hi"}]}),
        extra,
    )
}

/// A completion request.
pub(crate) fn completion(extra: Value) -> Value {
    merged(json!({"model": "north", "prompt": "Once"}), extra)
}

fn merged(mut base: Value, extra: Value) -> Value {
    let extra = extra.as_object().unwrap().clone();
    base.as_object_mut().unwrap().extend(extra);
    base
}
