//! The server under test: everything but a model. Steps take a fixed time and yield text at once.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use backstop_engine::{EngineConfig, EngineThread, Lifecycle, LifecycleState};
use backstop_server::{
    GenerationDefaults, ModelFacts, Provenance, QueueLimits, ServedModel, Server, ServerConfig,
};
use backstop_text::{ChatTemplates, ControlTexts, Tokenizer, chat_format};
use backstop_types::{
    AttentionSpan, Executor, KvGroupSpec, KvSpec, SampledToken, StepFailure, StepOutcome, StepPlan,
    TokenId, TokenSample,
};

/// Sequences at once: more than any load has.
const MAX_NUM_SEQS: u32 = 1024;
const MAX_WAITING: u32 = 4096;
const MAX_MODEL_LEN: u32 = 4096;
const BLOCK_SIZE: u32 = 16;
/// Enough for every sequence of every load.
const NUM_BLOCKS: u32 = 1 << 16;
/// Tokens that are said in turn.
const TEXT_TOKENS: usize = 997;

/// Serves on a free port, whose number it prints, until the process is killed.
#[expect(clippy::print_stdout, reason = "the parent reads the port")]
pub(crate) fn serve(model: &Path, step: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let tokenizer = Tokenizer::from_file(model.join("tokenizer.json")).map_err(other)?;
        let source = std::fs::read_to_string(model.join("chat_template.jinja"))?;
        let lifecycle = Lifecycle::new();
        let config = EngineConfig {
            max_num_seqs: MAX_NUM_SEQS,
            max_num_batched_tokens: 1 << 16,
            max_waiting: MAX_WAITING,
            max_model_len: MAX_MODEL_LEN,
            enable_prefix_caching: true,
            max_step_failures: 2,
            speculation: None,
        };
        let executor = SteadyExecutor::new(step, text_tokens(&tokenizer));
        let (engine, _thread) =
            EngineThread::spawn(&config, Box::new(executor), lifecycle.clone()).map_err(other)?;
        let limits = QueueLimits {
            max_requests: MAX_WAITING,
            ..QueueLimits::NORMAL
        };
        let server = Server::new(
            ServerConfig {
                normal: limits,
                ..ServerConfig::default()
            },
            lifecycle.clone(),
        );
        let format = chat_format("plain").ok_or_else(|| other("no plain format"))?;
        let controls = ControlTexts::new(&tokenizer, format, &[&source]).map_err(other)?;
        let sources = BTreeMap::from([("default".to_owned(), source)]);
        let templates = ChatTemplates::from_sources(&sources).map_err(other)?;
        server.install(ServedModel {
            control_texts: Arc::new(controls),
            fim: None,
            vocab_size: u32::try_from(tokenizer.vocab_size()).map_err(other)?,
            tokenizer: Arc::new(tokenizer),
            templates: templates.map(Arc::new),
            chat_format: format,
            eos_token_ids: Vec::new(),
            bos_token: String::new(),
            eos_token: String::new(),
            pad_token: None,
            defaults: GenerationDefaults::default(),
            max_model_len: MAX_MODEL_LEN,
            engine,
            names: vec!["*".to_owned()],
            root: "front-end".into(),
            provenance: Provenance::default(),
            created_s: 0,
            facts: ModelFacts::default(),
        });
        lifecycle.advance(LifecycleState::Ready);
        let listener = backstop_server::listen((Ipv4Addr::LOCALHOST, 0).into())?;
        println!("{}", listener.local_addr()?.port());
        backstop_server::serve(server, vec![listener.into()], std::future::pending()).await
    })
}

fn other(error: impl ToString) -> io::Error {
    io::Error::other(error.to_string())
}

/// Tokens that are words, or parts of them, in ASCII.
fn text_tokens(tokenizer: &Tokenizer) -> Vec<TokenId> {
    let is_text = |token: &TokenId| {
        let bytes = tokenizer.token_bytes(*token);
        let letters = |bytes: &[u8]| bytes.iter().all(|b| b.is_ascii_alphabetic() || *b == b' ');
        !tokenizer.is_special(*token) && bytes.is_some_and(|b| !b.is_empty() && letters(b))
    };
    let ids = 0..u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
    ids.filter(is_text).take(TEXT_TOKENS).collect()
}

/// An executor that computes nothing and takes its time.
struct SteadyExecutor {
    step: Duration,
    tokens: Vec<TokenId>,
    kv: KvSpec,
    plans: VecDeque<(Instant, StepPlan)>,
    last_end: Instant,
}

impl SteadyExecutor {
    fn new(step: Duration, tokens: Vec<TokenId>) -> Self {
        let group = KvGroupSpec {
            span: AttentionSpan::Full,
            num_blocks: NUM_BLOCKS,
        };
        Self {
            step,
            tokens,
            kv: KvSpec {
                block_size: BLOCK_SIZE,
                groups: vec![group],
            },
            plans: VecDeque::new(),
            last_end: Instant::now(),
        }
    }
}

impl Executor for SteadyExecutor {
    fn kv_spec(&self) -> &KvSpec {
        &self.kv
    }

    fn pipeline_depth(&self) -> usize {
        2
    }

    fn max_logit_rows(&self) -> u32 {
        MAX_NUM_SEQS
    }

    fn submit(&mut self, plan: StepPlan) {
        self.plans.push_back((Instant::now(), plan));
    }

    fn wait(&mut self) -> Result<StepOutcome, StepFailure> {
        let Some((submitted, plan)) = self.plans.pop_front() else {
            unreachable!("the engine waits for plans that it submitted");
        };
        // A step begins when it is there and the one before it has ended, as on a device.
        let end = submitted.max(self.last_end) + self.step;
        if !self.step.is_zero() {
            thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        self.last_end = end;
        let sampling = plan.sequences.iter().filter(|sequence| sequence.samples);
        let samples = sampling.map(|sequence| {
            let position = (sequence.first_position + sequence.num_tokens) as usize;
            let id = self.tokens[position % self.tokens.len()];
            TokenSample {
                sequence: sequence.sequence,
                token: Ok(SampledToken { id, logprobs: None }),
                further: Vec::new(),
                proposal: Vec::new(),
            }
        });
        Ok(StepOutcome {
            plan: plan.id,
            samples: samples.collect(),
            prompt_logprobs: Vec::new(),
        })
    }
}
