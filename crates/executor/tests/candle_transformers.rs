//! The native backend against the models of candle-transformers: whole models that share nothing with ours but the
//! files they read. Weights are random.

mod common;

use std::collections::HashMap;
use std::path::PathBuf;

use backstop_arch::Model;
use backstop_kernels::random::random_values;
use backstop_kernels::{Batch, Element};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{deepseek2, llama, mixtral, qwen3, qwen3_moe};
use common::goldens::{FLOAT, compare};
use common::{backend, load_with, model};
use serde_json::{Value, json};

/// Lengths of texts, whose last rows of logits are compared: candle-transformers gives no others.
const LENGTHS: [usize; 3] = [1, 7, 40];

/// The logits behind the text's last token.
type LastLogits = Box<dyn FnMut(&Tensor) -> Result<Tensor>>;

/// A checkpoint with this configuration and random weights.
fn checkpoint(name: &str, config: &Value) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
    let fields = config.as_object().expect("an object");
    let model = backstop_arch::build(fields).unwrap_or_else(|error| panic!("{error}"));
    let expected = model.spec().weights.expected(|_| false);
    let tensors = (1..).zip(expected).filter(|(_, tensor)| tensor.required);
    let tensors = tensors.map(|(seed, tensor)| {
        let count = tensor.shape.iter().product();
        // Gains lie around one, and products keep the size of what goes through them.
        let (mean, size) = match tensor.shape.as_slice() {
            [_] => (1.0, 0.1),
            shape => (0.0, 1.7 / (shape[shape.len() - 1] as f32).sqrt()),
        };
        let values: Vec<f32> = random_values(seed, count, size)
            .into_iter()
            .map(|value| mean + value)
            .collect();
        let values = Tensor::from_vec(values, tensor.shape, &Device::Cpu).expect("a shape");
        (tensor.name, values)
    });
    let tensors: HashMap<String, Tensor> = tensors.collect();
    candle_core::safetensors::save(&tensors, directory.join("model.safetensors")).expect("written");
    directory
}

/// Compares both on texts of several lengths. `build` makes candle's model anew, with an empty cache.
fn check(name: &str, config: &Value, build: impl Fn(VarBuilder<'_>) -> Result<LastLogits>) {
    let directory = checkpoint(name, config);
    let loaded = load_with(&directory, |weights| weights);
    let bytes = std::fs::read(directory.join("model.safetensors")).expect("written above");
    let model = model(&loaded.checkpoint);
    let groups = model.spec().kv_groups.len();
    let text: Vec<u32> = (0..40).map(|index| (index * 29 + 5) % 64).collect();
    for length in LENGTHS {
        let tokens = &text[..length];
        let mut native = backend(&loaded, 16, &vec![8; groups], Element::F32);
        let mut batch = Batch::new();
        batch.push(0, 0, tokens, true);
        native.begin(&batch, &vec![vec![(0..8).collect::<Vec<u32>>()]; groups]);
        model.forward(&mut native);

        let variables =
            VarBuilder::from_buffered_safetensors(bytes.clone(), DType::F32, &Device::Cpu);
        let mut candle = build(variables.expect("a checkpoint")).expect("a model");
        let input = Tensor::new(tokens, &Device::Cpu).and_then(|input| input.unsqueeze(0));
        let logits = candle(&input.expect("a row")).and_then(|logits| logits.flatten_all());
        let logits: Vec<f32> = logits.and_then(|logits| logits.to_vec1()).expect("logits");
        let name = format!("{name}, {length} tokens");
        compare(&name, native.logits(), &logits, &FLOAT);
    }
}

/// What all these configurations say.
fn config(model_type: &str, own: Value) -> Value {
    let mut config = json!({
        "model_type": model_type, "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
    });
    let all = config.as_object_mut().expect("an object");
    all.extend(own.as_object().expect("an object").clone());
    config
}

/// The same as one of candle's configurations, with what these ask for and ours do not know.
fn of_candle<T: serde::de::DeserializeOwned>(config: &Value, more: Value) -> T {
    let mut config = config.clone();
    let all = config.as_object_mut().expect("an object");
    all.extend(more.as_object().expect("an object").clone());
    serde_json::from_value(config).expect("a configuration of candle's")
}

#[test]
fn llama() {
    let config = config("llama", json!({}));
    check("llama", &config, |variables| {
        let own: llama::LlamaConfig = of_candle(&config, json!({}));
        let own = own.into_config(false);
        let mut cache = llama::Cache::new(true, DType::F32, &own, &Device::Cpu)?;
        let model = llama::Llama::load(variables, &own)?;
        Ok(Box::new(move |input| model.forward(input, 0, &mut cache)))
    });
}

#[test]
fn qwen3() {
    let config = config("qwen3", json!({"head_dim": 32}));
    check("qwen3", &config, |variables| {
        let own = of_candle(&config, of_qwen3());
        let mut model = qwen3::ModelForCausalLM::new(&own, variables)?;
        Ok(Box::new(move |input| model.forward(input, 0)))
    });
}

#[test]
fn qwen3_with_experts() {
    let experts = json!({
        "head_dim": 32, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48,
        "norm_topk_prob": true, "decoder_sparse_step": 1,
    });
    let config = config("qwen3_moe", experts);
    check("qwen3_moe", &config, |variables| {
        let own = of_candle(&config, of_qwen3());
        let mut model = qwen3_moe::ModelForCausalLM::new(&own, variables)?;
        Ok(Box::new(move |input| model.forward(input, 0)))
    });
}

fn of_qwen3() -> Value {
    json!({"attention_bias": false, "max_window_layers": 0, "use_sliding_window": false})
}

#[test]
fn mixtral() {
    let config = config(
        "mixtral",
        json!({"num_local_experts": 4, "num_experts_per_tok": 2}),
    );
    check("mixtral", &config, |variables| {
        let own = of_candle(
            &config,
            json!({"sliding_window": 4096, "use_flash_attn": false}),
        );
        let mut model = mixtral::Model::new(&own, variables)?;
        Ok(Box::new(move |input| model.forward(input, 0)))
    });
}

/// Candle-transformers has DeepSeek-V2, whose routers are others; its latent attention is the same.
#[test]
fn latent_attention() {
    let latent = json!({
        "num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 32, "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 24, "v_head_dim": 20, "moe_intermediate_size": 32, "n_routed_experts": 4,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "routed_scaling_factor": 1.0, "n_group": 1,
        "topk_group": 1, "first_k_dense_replace": 3, "norm_topk_prob": true, "attention_bias": false,
        "rope_interleave": true,
    });
    let config = config("deepseek_v3", latent);
    check("deepseek_v3", &config, |variables| {
        let own = of_candle(
            &config,
            json!({"topk_method": "greedy", "scoring_func": "softmax"}),
        );
        let mut model = deepseek2::DeepSeekV2::new(&own, variables)?;
        Ok(Box::new(move |input| model.forward(input, 0)))
    });
}
