//! EAGLE heads: what they compute, against an independent implementation
//! (`scripts/goldens/make_eagle_goldens.py`), and that answers with them are the model's own.

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_arch::{ArchError, DraftHead, Model, build_draft_head};
use backstop_executor::{DeviceExecutor, Drafter, KvMemoryRequest, draft_kv_cache, plan_kv_memory};
use backstop_kernels::{Batch, CpuActivation, CpuBackend, CpuWeights, Element};
use backstop_loader::load_cpu_draft_head;
use backstop_sched::Speculation;
use backstop_types::{
    Executor, KvSpec, SamplingParams, SequenceId, StepFailure, StepOutcome, StepPlan, TokenId,
};
use backstop_weights::Checkpoint;
use common::{
    Drive, Driven, Loaded, Request, backend, cpu_executor_with, drive, drive_with, kv_spec, load,
    model, repository,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

const PAIRS: [[&str; 2]; 2] = [
    ["north_bf16_sharded", "north"],
    ["layer_norm_null", "mixed_layer_norm"],
];

/// A head for a model, with its weights.
struct Head {
    checkpoint: Checkpoint,
    weights: Arc<CpuWeights>,
}

impl Head {
    fn load(directory: &Path, model: &Loaded) -> Self {
        let checkpoint = Checkpoint::open(directory, &[]).unwrap_or_else(|error| panic!("{error}"));
        let spec = common::model(&model.checkpoint);
        let head = build(&checkpoint, model).unwrap_or_else(|error| panic!("{error}"));
        let weights = load_cpu_draft_head(
            &checkpoint,
            head.spec(),
            spec.spec(),
            &model.weights,
            &|_| {},
        );
        let weights = Arc::new(weights.unwrap_or_else(|error| panic!("{error}")));
        Self {
            checkpoint,
            weights,
        }
    }

    fn build(&self, model: &Loaded) -> Box<dyn DraftHead<CpuBackend>> {
        build(&self.checkpoint, model).expect("it was built before")
    }

    fn backend(&self, model: &Loaded, kv: &KvSpec, element: Element) -> CpuBackend {
        let cache = draft_kv_cache(self.build(model).spec(), kv, element);
        CpuBackend::new(Arc::clone(&self.weights), cache)
    }

    /// Answers of the model with guesses of the head.
    fn drive(&self, model: &Loaded, settings: &Drive, waves: &[Vec<Request>]) -> Recorded {
        let settings = Drive {
            speculation: Some(Speculation::Proposals {
                max_draft_tokens: 3,
            }),
            ..*settings
        };
        let kv = kv_spec(model, &settings);
        let backend = self.backend(model, &kv, Element::BF16);
        let drafter = Drafter::new(self.build(model).into(), backend, 3);
        let mut recorder = Recorder {
            executor: cpu_executor_with(model, &settings, Some(drafter)),
            lengths: VecDeque::new(),
            proposals: BTreeMap::new(),
        };
        let driven = drive_with(&mut recorder, &kv, &settings, waves);
        Recorded {
            driven,
            proposals: recorder.proposals,
        }
    }
}

/// What was guessed to follow a sequence's first so many tokens.
type Proposals = BTreeMap<(SequenceId, usize), Vec<TokenId>>;

struct Recorded {
    driven: Driven,
    proposals: Proposals,
}

/// Keeps what an executor proposes.
struct Recorder {
    executor: DeviceExecutor,
    /// Of each plan in flight, and in it of each sequence that samples: its tokens so far.
    lengths: VecDeque<Vec<usize>>,
    proposals: Proposals,
}

impl Executor for Recorder {
    fn kv_spec(&self) -> &KvSpec {
        self.executor.kv_spec()
    }

    fn pipeline_depth(&self) -> usize {
        self.executor.pipeline_depth()
    }

    fn max_logit_rows(&self) -> u32 {
        self.executor.max_logit_rows()
    }

    fn submit(&mut self, plan: StepPlan) {
        let sampling = plan.sequences.iter().filter(|scheduled| scheduled.samples);
        let lengths = sampling.map(|scheduled| {
            (scheduled.first_position + scheduled.num_tokens) as usize - scheduled.draft.len()
        });
        self.lengths.push_back(lengths.collect());
        self.executor.submit(plan);
    }

    fn wait(&mut self) -> Result<StepOutcome, StepFailure> {
        let outcome = self.executor.wait()?;
        let lengths = self.lengths.pop_front().expect("a plan in flight");
        for (sample, length) in outcome.samples.iter().zip(lengths) {
            let length = length + 1 + sample.further.len();
            let proposal = sample.proposal.clone();
            self.proposals.insert((sample.sequence, length), proposal);
        }
        Ok(outcome)
    }
}

fn build(head: &Checkpoint, target: &Loaded) -> Result<Box<dyn DraftHead<CpuBackend>>, ArchError> {
    build_draft_head(head.config(), model(&target.checkpoint).spec())
}

fn pair([target, head]: [&str; 2]) -> (Loaded, Head) {
    let target = load(&repository(&format!("tests/goldens/cohere2_moe/{target}")));
    let head = Head::load(&repository(&format!("tests/goldens/eagle/{head}")), &target);
    (target, head)
}

struct Expected {
    tokens: Vec<u32>,
    guesses: Vec<u32>,
    hidden: Vec<f32>,
    logits: Vec<f32>,
}

fn expected(name: &str) -> Expected {
    let path = repository(&format!("tests/goldens/eagle/{name}/expected.safetensors"));
    let bytes = std::fs::read(path).expect("a golden");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let data = |name: &str| tensors.tensor(name).expect("a tensor").data().to_vec();
    let integers = |name: &str| -> Vec<u32> {
        let data = data(name);
        let words = data.as_chunks::<8>().0;
        words
            .iter()
            .map(|&word| i64::from_le_bytes(word) as u32)
            .collect()
    };
    let numbers = |name: &str| -> Vec<f32> {
        let data = data(name);
        let words = data.as_chunks::<4>().0;
        words.iter().map(|&word| f32::from_le_bytes(word)).collect()
    };
    Expected {
        tokens: integers("tokens"),
        guesses: integers("guesses"),
        hidden: numbers("hidden"),
        logits: numbers("logits"),
    }
}

/// Runs model and head over one sequence.
struct Run<'a> {
    target: &'a Loaded,
    model: CpuBackend,
    head: Box<dyn DraftHead<CpuBackend>>,
    backend: CpuBackend,
    groups: usize,
}

impl Run<'_> {
    /// Hidden states of the head behind these positions, and logits of all of them.
    fn follow(&mut self, first: u32, tokens: &[u32], following: &[u32]) -> CpuActivation {
        let mut batch = Batch::new();
        batch.push(0, first, tokens, false);
        self.model.begin(&batch, &tables(self.groups));
        let hidden = model(&self.target.checkpoint).forward(&mut self.model);
        let rows: Vec<u32> = (0..tokens.len() as u32).collect();
        self.step(first, following, &hidden, &rows)
    }

    fn step(
        &mut self,
        first: u32,
        tokens: &[u32],
        hidden: &CpuActivation,
        rows: &[u32],
    ) -> CpuActivation {
        let mut batch = Batch::new();
        batch.push(0, first, tokens, false);
        batch.logit_rows = (0..tokens.len() as u32).collect();
        let groups = self.head.spec().kv_groups.len();
        self.backend.begin(&batch, &tables(groups));
        self.head.forward(&mut self.backend, hidden, rows)
    }
}

fn tables(groups: usize) -> Vec<Vec<Vec<u32>>> {
    vec![vec![(0..64_u32).rev().collect()]; groups]
}

fn compare(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let squares: f32 = expected.iter().map(|x| x * x).sum();
    let typical = (squares / expected.len() as f32).sqrt();
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs() / typical;
        assert!(difference <= 5e-4, "{what}: {difference:e} at {index}");
    }
}

#[test]
fn hidden_states_logits_and_guesses_are_those_of_the_reference() {
    for names in PAIRS {
        let (target, head) = pair(names);
        let expected = expected(names[1]);
        let length = expected.tokens.len() - 1;
        let (tokens, following) = (&expected.tokens[..length], &expected.tokens[1..]);
        let groups = model(&target.checkpoint).spec().kv_groups.len();
        let kv = kv_spec(
            &target,
            &Drive {
                blocks: 64,
                ..roomy()
            },
        );
        let mut whole: Option<Vec<f32>> = None;
        for chunk in [length, 17, 1] {
            let mut run = Run {
                target: &target,
                model: backend(&target, 16, &vec![64; groups], Element::F32),
                head: head.build(&target),
                backend: head.backend(&target, &kv, Element::F32),
                groups,
            };
            let (mut hidden, mut logits) = (Vec::new(), Vec::new());
            let mut last = None;
            for first in (0..length).step_by(chunk) {
                let range = first..length.min(first + chunk);
                let computed = run.follow(
                    first as u32,
                    &tokens[range.clone()],
                    &following[range.clone()],
                );
                hidden.extend_from_slice(computed.values());
                logits.extend_from_slice(run.backend.logits());
                last = Some((computed, range.len() as u32 - 1));
            }
            compare(names[1], &hidden, &expected.hidden);
            // Then it goes on by itself.
            let (mut state, mut row) = last.expect("a chunk");
            for (position, &guess) in (length as u32..).zip(&expected.guesses[..2]) {
                state = run.step(position, &[guess], &state, &[row]);
                row = 0;
                logits.extend_from_slice(run.backend.logits());
            }
            compare(names[1], &logits, &expected.logits);
            let same = whole.get_or_insert_with(|| logits.clone()) == &logits;
            assert!(same, "{}: chunks of {chunk} change the logits", names[1]);
        }
    }
}

fn roomy() -> Drive {
    Drive {
        block_size: 16,
        blocks: 1024,
        max_num_seqs: 16,
        max_num_batched_tokens: 512,
        enable_prefix_caching: false,
        num_threads: 2,
        speculation: None,
    }
}

/// Requests of different lengths, half of which sample at random; some begin alike.
fn requests(target: &Loaded, count: u32) -> Vec<Request> {
    let vocabulary = common::vocabulary(target);
    let request = |index: u32| {
        let length = 1 + index * 37 % 90;
        let seed = if index % 3 == 2 { index - 1 } else { index };
        let prompt = (0..length).map(|position| (seed * 31 + position * (seed + 7)) % vocabulary);
        Request {
            prompt: prompt.collect(),
            sampling: SamplingParams {
                temperature: if index.is_multiple_of(2) { 0.0 } else { 0.8 },
                seed: index.into(),
                logprobs: Some(2),
                ..SamplingParams::default()
            },
            max_tokens: 10 + index % 20,
            min_tokens: 0,
            stop_token_ids: vec![3],
        }
    };
    (0..count).map(request).collect()
}

#[test]
fn answers_are_the_same_with_a_head() {
    let chunked = Drive {
        max_num_batched_tokens: 21,
        ..roomy()
    };
    let preempted = Drive {
        block_size: 4,
        blocks: 40,
        enable_prefix_caching: true,
        ..roomy()
    };
    let cached = Drive {
        enable_prefix_caching: true,
        block_size: 8,
        ..roomy()
    };
    for names in PAIRS {
        let (target, head) = pair(names);
        let requests = requests(&target, 30);
        let waves = [requests.clone(), requests];
        let plain = drive(&target, &roomy(), &waves);
        for (what, settings) in [
            ("roomy", roomy()),
            ("chunked", chunked),
            ("preempted", preempted),
            ("cached", cached),
        ] {
            let found = head.drive(&target, &settings, &waves).driven;
            assert!(plain.tokens == found.tokens, "{}: {what}", names[1]);
            assert_eq!(plain.ends, found.ends, "{}: {what}", names[1]);
            let (guessed, right) = found.guessed;
            assert!(guessed > 500, "{}: {what}: {guessed} guesses", names[1]);
            assert!(
                right < guessed,
                "{}: {what}: random heads are wrong",
                names[1]
            );
            match what {
                "preempted" => assert!(found.preemptions > 5, "{}", found.preemptions),
                "cached" => assert!(found.prefix_hits > 500, "{}", found.prefix_hits),
                _ => {}
            }
        }
    }
}

#[test]
fn the_keys_and_values_of_the_head_are_part_of_the_budget() {
    for names in PAIRS {
        let (target, head) = pair(names);
        let (model, head) = (model(&target.checkpoint), head.build(&target));
        let request = KvMemoryRequest {
            budget_bytes: 1 << 20,
            block_size: 16,
            element_bytes: 4,
            max_num_seqs: 4,
            max_model_len: 128,
            max_num_batched_tokens: 64,
        };
        let plan = plan_kv_memory(&head.spec().with_room(&model.spec().kv_groups), &request);
        let plan = plan.expect("room enough");
        let blocks: Vec<u32> = plan
            .spec
            .groups
            .iter()
            .map(|group| group.num_blocks)
            .collect();
        let own = draft_kv_cache(head.spec(), &plan.spec, Element::F32).bytes();
        let all = own + backend(&target, 16, &blocks, Element::F32).kv().bytes();
        assert!(own > 0);
        assert_eq!(plan.bytes, all as u64);
    }
}

#[test]
fn guesses_follow_from_the_text_alone() {
    let chunked = Drive {
        max_num_batched_tokens: 21,
        ..roomy()
    };
    let preempted = Drive {
        block_size: 4,
        blocks: 34,
        ..roomy()
    };
    let cached = Drive {
        enable_prefix_caching: true,
        block_size: 8,
        ..roomy()
    };
    for names in PAIRS {
        let (target, head) = pair(names);
        let all = requests(&target, 30);
        // The end of a prefix that is shared with another text has keys and values of that text's
        // next token. So only equal texts share here.
        let all = all.chunks(3).flat_map(|three| &three[..2]).cloned();
        let requests: Vec<Request> = all.collect();
        let waves = [requests.clone(), requests];
        let expected = head.drive(&target, &roomy(), &waves).proposals;
        for (what, settings) in [
            ("chunked", chunked),
            ("preempted", preempted),
            ("cached", cached),
        ] {
            let found = head.drive(&target, &settings, &waves);
            match what {
                "preempted" => assert!(found.driven.preemptions > 5, "too much room"),
                "cached" => assert!(found.driven.prefix_hits > 300),
                _ => {}
            }
            let mut compared = 0;
            for (place, found) in &found.proposals {
                // Elsewhere the guesses before were others in number.
                let Some(expected) = expected.get(place) else {
                    continue;
                };
                // Without a block for it there is no further guess.
                let both = expected.len().min(found.len());
                assert!(both > 0, "{}: {what}", names[1]);
                assert_eq!(expected[..both], found[..both], "{}: {what}", names[1]);
                compared += both;
            }
            assert!(compared > 1000, "{}: {what}: {compared}", names[1]);
        }
    }
}

/// Writes a checkpoint of these tensors (name, shape, values) and returns its folder.
fn write(
    name: &str,
    config: &Value,
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    let bytes: BTreeMap<&str, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            (name.as_str(), bytes.collect())
        })
        .collect();
    let views = tensors.iter().map(|(name, (shape, _))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), &bytes[name.as_str()]);
        (name, view.expect("a shape that fits"))
    });
    let file = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &file).expect("a file");
    folder
}

/// A tensor of zeros.
fn zeros(shape: &[usize]) -> (Vec<usize>, Vec<f32>) {
    (shape.to_vec(), vec![0.0; shape.iter().product()])
}

/// Numbers between -1 and 1 without a pattern.
fn noise(shape: &[usize], seed: u32) -> (Vec<usize>, Vec<f32>) {
    let len: usize = shape.iter().product();
    let mut state = seed;
    let values = (0..len).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    });
    (shape.to_vec(), values.collect())
}

/// A model whose layer adds nothing, so that a token follows from the last one alone, and a head
/// that says the same of the next token's embedding.
fn mind_readers() -> (Loaded, Head) {
    let common = json!({
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "layer_types": ["sliding_attention"], "sliding_window": 16, "layer_norm_eps": 1e-5,
    });
    let with = |more: Value| {
        let mut config = common.as_object().expect("an object").clone();
        config.extend(more.as_object().expect("an object").clone());
        Value::Object(config)
    };
    let mut layer = BTreeMap::new();
    for (name, shape) in [
        ("self_attn.q_proj", vec![16, 16]),
        ("self_attn.k_proj", vec![8, 16]),
        ("self_attn.v_proj", vec![8, 16]),
        ("self_attn.o_proj", vec![16, 16]),
        ("mlp.gate_proj", vec![8, 16]),
        ("mlp.up_proj", vec![8, 16]),
        ("mlp.down_proj", vec![16, 8]),
    ] {
        layer.insert(format!("model.layers.0.{name}.weight"), zeros(&shape));
    }
    let ones = (vec![16], vec![1.0; 16]);
    layer.insert("model.layers.0.input_layernorm.weight".into(), ones.clone());
    layer.insert("model.norm.weight".into(), ones);
    let mut tensors = layer.clone();
    tensors.insert("model.embed_tokens.weight".into(), noise(&[64, 16], 1));
    tensors.insert("lm_head.weight".into(), noise(&[64, 16], 2));
    let config = with(json!({
        "model_type": "cohere2_moe", "first_k_dense_replace": 1, "tie_word_embeddings": false,
        "num_experts": 2, "num_experts_per_tok": 1,
    }));
    let target = load(&write("eagle_model", &config, &tensors));
    let mut fusion = zeros(&[16, 32]);
    for row in 0..16 {
        fusion.1[row * 32 + row] = 1.0;
    }
    layer.insert("model.fc.weight".into(), fusion);
    layer.insert("model.fc.bias".into(), zeros(&[16]));
    let config = with(json!({"model_type": "cohere2"}));
    let head = Head::load(&write("eagle_head", &config, &layer), &target);
    (target, head)
}

#[test]
fn the_guesses_of_a_head_that_knows_the_model_are_all_accepted() {
    let (target, head) = mind_readers();
    let request = |first: u32| Request {
        prompt: (first..first + 5 + first % 7).collect(),
        sampling: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        },
        max_tokens: 40,
        min_tokens: 0,
        stop_token_ids: Vec::new(),
    };
    let wave: Vec<Request> = (0..8).map(request).collect();
    let plain = drive(&target, &roomy(), std::slice::from_ref(&wave));
    let found = head.drive(&target, &roomy(), &[wave]).driven;
    assert!(plain.tokens == found.tokens);
    let different: std::collections::BTreeSet<u32> = plain.ids(0).into_iter().collect();
    assert!(different.len() > 2, "answers are not one token repeated");
    let (guessed, right) = found.guessed;
    assert_eq!(guessed, right);
    // Of 40 tokens each, most came of guesses: three of four but for the edges of blocks.
    assert!(right > 8 * 40 / 2, "only {right}");
}

#[test]
fn a_head_that_does_not_fit_is_refused() {
    let (target, head) = pair(PAIRS[0]);
    let refused = |target: &Loaded, field: &str, value: Value| {
        let mut config = head.checkpoint.config().clone();
        config.insert(field.into(), value);
        let spec = model(&target.checkpoint);
        let built = build_draft_head::<CpuBackend>(&config, spec.spec());
        built.err().expect("a refusal").to_string()
    };
    for (field, value, named) in [
        ("model_type", json!("llama"), "supported are: cohere2"),
        (
            "hidden_size",
            json!(128),
            "hidden_size is 128, and that of the model is 64",
        ),
        (
            "vocab_size",
            json!(95),
            "vocab_size is 95, and that of the model is 96",
        ),
        ("tie_word_embeddings", json!(false), "tie_word_embeddings"),
        ("use_qk_norm", json!(true), "use_qk_norm"),
        ("num_medusa_heads", json!(4), "num_medusa_heads"),
    ] {
        let message = refused(&target, field, value);
        assert!(message.contains(named), "{field}: {message}");
    }
    let other = load(&repository("tests/goldens/decoders/qwen2_layer_types"));
    let message = refused(&other, "num_hidden_layers", json!(3));
    assert!(
        message.contains("continues models of type cohere2_moe"),
        "{message}"
    );
    let narrow = load(&repository("tests/goldens/cohere2_moe/window_one"));
    let message = refused(&narrow, "num_hidden_layers", json!(3));
    assert!(message.contains("keeps fewer positions"), "{message}");
}
