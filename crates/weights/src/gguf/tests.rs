//! GGUF files: what they say, and what is wrong with damaged ones.

use std::path::PathBuf;

use backstop_text::Vocabulary;

use crate::test_support::{Directory, FAMILIES, assert_mentions};
use crate::{Checkpoint, ElementType, EmbeddedTokenizer, TokenizerSource};

/// Writes GGUF files.
#[derive(Clone, Default)]
struct Writer {
    values: Vec<(String, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

impl Writer {
    /// A small Llama: 2 heads of 4, one of keys and values.
    fn llama() -> Self {
        Self::default()
            .text("general.architecture", "llama")
            .u32("llama.block_count", 1)
            .u32("llama.embedding_length", 8)
            .u32("llama.feed_forward_length", 16)
            .u32("llama.attention.head_count", 2)
            .u32("llama.attention.head_count_kv", 1)
            .u32("llama.context_length", 64)
            .u32("llama.vocab_size", 3)
            .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    }

    fn value(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        let value = [&kind.to_le_bytes(), bytes].concat();
        self.values.push((key.to_owned(), value));
        self
    }

    fn u32(self, key: &str, value: u32) -> Self {
        self.value(key, 4, &value.to_le_bytes())
    }

    fn f32(self, key: &str, value: f32) -> Self {
        self.value(key, 6, &value.to_le_bytes())
    }

    fn text(self, key: &str, text: &str) -> Self {
        self.value(key, 8, &text_bytes(text))
    }

    fn texts(self, key: &str, texts: &[&str]) -> Self {
        let count = texts.len() as u64;
        let texts = texts.iter().flat_map(|text| text_bytes(text));
        let mut bytes = 8_u32.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend(texts);
        self.value(key, 9, &bytes)
    }

    fn tensor(mut self, name: &str, extents: &[u64], kind: u32, data: &[u8]) -> Self {
        let tensor = (name.to_owned(), extents.to_vec(), kind, data.to_vec());
        self.tensors.push(tensor);
        self
    }

    fn numbers(self, name: &str, extents: &[u64], numbers: &[f32]) -> Self {
        let data: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        self.tensor(name, extents, 0, &data)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.values.len() as u64).to_le_bytes());
        for (key, value) in &self.values {
            bytes.extend(text_bytes(key));
            bytes.extend(value);
        }
        let mut offset = 0_u64;
        for (name, extents, kind, data) in &self.tensors {
            bytes.extend(text_bytes(name));
            bytes.extend((extents.len() as u32).to_le_bytes());
            bytes.extend(extents.iter().flat_map(|extent| extent.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset = (offset + data.len() as u64).next_multiple_of(32);
        }
        for (_, _, _, data) in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(32), 0);
            bytes.extend(data);
        }
        bytes
    }

    fn open(&self) -> Result<Checkpoint, String> {
        let directory = Directory::new();
        directory.write("model.gguf", self.bytes());
        Checkpoint::open(&directory.join("model.gguf"), FAMILIES).map_err(|error| error.to_string())
    }

    fn error(&self) -> String {
        self.open().unwrap_err()
    }
}

fn text_bytes(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn f32s(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let bytes = checkpoint.read(name).unwrap();
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers
        .iter()
        .map(|&number| f32::from_le_bytes(number))
        .collect()
}

#[test]
fn metadata_becomes_the_fields_of_a_configuration() {
    let checkpoint = Writer::llama()
        .u32("llama.rope.dimension_count", 4)
        .open()
        .unwrap();
    let expected = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "num_hidden_layers": 1, "intermediate_size": 16, "max_position_embeddings": 64,
        "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "vocab_size": 3,
        "tie_word_embeddings": true,
    });
    assert_eq!(
        serde_json::Value::from(checkpoint.config().clone()),
        expected
    );
}

#[test]
fn tensors_have_the_names_and_the_order_of_rows_that_models_ask_for() {
    let rows: Vec<f32> = (0..8).map(|row| row as f32).collect();
    let checkpoint = Writer::llama()
        .numbers("blk.0.attn_q.weight", &[1, 8], &rows)
        .numbers("blk.0.attn_k.weight", &[1, 4], &rows[..4])
        .numbers("blk.0.attn_v.weight", &[1, 4], &rows[..4])
        .numbers("output.weight", &[2, 3], &rows[..6])
        .numbers("blk.0.unheard_of.weight", &[1], &rows[..1])
        .open()
        .unwrap();
    let query = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!(f32s(&checkpoint, query), [0., 2., 1., 3., 4., 6., 5., 7.]);
    let key = "model.layers.0.self_attn.k_proj.weight";
    assert_eq!(f32s(&checkpoint, key), [0., 2., 1., 3.]);
    let value = "model.layers.0.self_attn.v_proj.weight";
    assert_eq!(f32s(&checkpoint, value), [0., 1., 2., 3.]);
    assert_eq!(checkpoint.tensor("lm_head.weight").unwrap().shape, [3, 2]);
    assert_eq!(checkpoint.config()["tie_word_embeddings"], false);
    assert!(checkpoint.tensor("blk.0.unheard_of.weight").is_some());
    // A part that begins within a head.
    let mut part = [0; 12];
    checkpoint.read_part(query, 8, &mut part).unwrap();
    let expected: Vec<u8> = [1_f32, 3., 4.]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    assert_eq!(part.as_slice(), expected);
}

#[test]
fn a_tensor_of_all_experts_is_one_for_each() {
    let rows: Vec<f32> = (0..12).map(|row| row as f32).collect();
    let mut writer = Writer::llama();
    for (key, value) in &mut writer.values {
        *key = key.replace("llama.", "qwen3moe.");
        if key == "general.architecture" {
            *value = [&8_u32.to_le_bytes()[..], &text_bytes("qwen3moe")].concat();
        }
    }
    let writer = writer
        .u32("qwen3moe.expert_count", 3)
        .u32("qwen3moe.expert_used_count", 2)
        .u32("qwen3moe.expert_feed_forward_length", 2);
    let checkpoint = writer
        .clone()
        .numbers("blk.0.ffn_gate_exps.weight", &[2, 2, 3], &rows)
        .numbers("blk.0.ffn_down_exps.weight", &[2, 2, 3], &rows)
        .open()
        .unwrap();
    let config = checkpoint.config();
    assert_eq!(config["model_type"], "qwen3_moe");
    assert_eq!(config["num_experts"], 3);
    assert_eq!(config["num_experts_per_tok"], 2);
    assert_eq!(config["moe_intermediate_size"], 2);
    assert_eq!(config["norm_topk_prob"], true);
    let expert = |expert: usize| {
        let name = format!("model.layers.0.mlp.experts.{expert}.gate_proj.weight");
        assert_eq!(checkpoint.tensor(&name).unwrap().shape, [2, 2]);
        f32s(&checkpoint, &name)
    };
    assert_eq!(expert(0), rows[..4]);
    assert_eq!(expert(2), rows[8..]);
    let last = "model.layers.0.mlp.experts.2.down_proj.weight";
    assert_eq!(f32s(&checkpoint, last), rows[8..]);
    let flat = writer.numbers("blk.0.ffn_up_exps.weight", &[2, 6], &rows);
    assert_mentions(
        &flat.error(),
        &["blk.0.ffn_up_exps.weight", "each of at most"],
    );
}

/// Everything that a file may say of a tokenizer of either kind.
fn with_tokenizer(model: &str) -> Writer {
    let scores = [-1.5, 0.0, 0.0_f32].map(|score| score.to_bits() as i32);
    Writer::llama()
        .text("tokenizer.ggml.model", model)
        .text("tokenizer.ggml.pre", "smollm")
        .texts("tokenizer.ggml.tokens", &["a", "<s>", "</s>"])
        .value("tokenizer.ggml.token_type", 9, &list(5, &[1, 3, 4]))
        .value("tokenizer.ggml.scores", 9, &list(6, &scores))
        .value("tokenizer.ggml.add_space_prefix", 7, &[0])
        .texts("tokenizer.ggml.merges", &["a a"])
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .value("tokenizer.ggml.add_bos_token", 7, &[1])
        .u32("tokenizer.ggml.fim_pre_token_id", 1)
        .u32("tokenizer.ggml.prefix_token_id", 0)
        .u32("tokenizer.ggml.suffix_token_id", 2)
        .text("tokenizer.chat_template", "{{ bos_token }}")
}

fn embedded(checkpoint: &Checkpoint) -> &EmbeddedTokenizer {
    match checkpoint.tokenizer() {
        TokenizerSource::Embedded(tokenizer) => tokenizer,
        TokenizerSource::File(path) => panic!("the tokenizer is in the file, not in {path:?}"),
    }
}

#[test]
fn the_tokenizer_and_the_special_tokens_are_found() {
    let checkpoint = with_tokenizer("gpt2").open().unwrap();
    let tokenizer = embedded(&checkpoint);
    let Vocabulary::BytePairs(pairs) = &tokenizer.vocabulary else {
        panic!("gpt2 is the kind with byte-level pairs");
    };
    assert_eq!(pairs.pre_tokenizer, "smollm");
    assert_eq!(pairs.tokens, ["a", "<s>", "</s>"]);
    assert_eq!(
        (pairs.control.as_slice(), pairs.user_defined.as_slice()),
        (&[1][..], &[2][..])
    );
    assert_eq!(pairs.merges, ["a a"]);
    assert_eq!((pairs.bos, pairs.adds_bos), (Some(1), Some(true)));
    let fim = tokenizer.fim;
    assert_eq!(
        (fim.prefix, fim.suffix, fim.middle),
        (Some(1), Some(2), None)
    );
    assert_eq!(checkpoint.special_tokens().eos.as_deref(), Some("</s>"));
    assert_eq!(checkpoint.generation_config().eos_token_ids, [2]);
    assert_eq!(checkpoint.default_chat_template(), Some("{{ bos_token }}"));
}

#[test]
fn named_templates_of_a_gguf_file_are_found() {
    let file = || {
        with_tokenizer("gpt2")
            .text("tokenizer.chat_template.tool_use", "t")
            .text("tokenizer.chat_template.unlisted", "u")
    };
    let listed = file().texts("tokenizer.chat_templates", &["tool_use"]);
    let checkpoint = listed.open().unwrap();
    let named: Vec<(&str, &str)> = checkpoint
        .chat_templates()
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    assert_eq!(
        named,
        [
            ("default", "{{ bos_token }}"),
            ("tool_use", "t"),
            ("unlisted", "u")
        ]
    );
    let absent = file().texts("tokenizer.chat_templates", &["rag"]);
    assert_mentions(&absent.error(), &["no chat template \"rag\""]);
}

#[test]
fn a_tokenizer_of_sentence_pieces_is_found() {
    let checkpoint = with_tokenizer("llama").open().unwrap();
    let Vocabulary::SentencePieces(pieces) = &embedded(&checkpoint).vocabulary else {
        panic!("llama is the kind with scores");
    };
    assert_eq!(pieces.scores, [-1.5, 0.0, 0.0]);
    assert_eq!(pieces.normal, [0]);
    assert_eq!(pieces.control, [1]);
    assert_eq!(pieces.user_defined, [2]);
    assert_eq!(pieces.begin, Some(1));
    assert!(!pieces.adds_space);
}

fn list(kind: u32, numbers: &[i32]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((numbers.len() as u64).to_le_bytes());
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

#[test]
fn llama_3_scaling_is_recognised_by_its_factors() {
    let factors = |largest: f64| -> Vec<f32> {
        let factor = |index: i32| {
            let wave = std::f64::consts::TAU * 500_000_f64.powf(f64::from(index) / 16.0);
            let smooth = ((8192.0 / wave - 1.0) / 3.0).clamp(0.0, 1.0);
            (1.0 / ((1.0 - smooth) / largest + smooth)) as f32
        };
        (0..16).map(factor).collect()
    };
    let file = Writer::llama()
        .u32("llama.attention.key_length", 32)
        .f32("llama.rope.freq_base", 500_000.0);
    let known = file
        .clone()
        .numbers("rope_freqs.weight", &[16], &factors(32.0));
    let scaling = known.open().unwrap().config()["rope_scaling"].clone();
    assert_eq!(scaling["rope_type"], "llama3");
    assert_eq!(scaling["factor"], 32.0);
    let other = [&[1.5], &factors(8.0)[1..]].concat();
    for wrong in [other.as_slice(), &factors(8.0)[..8]] {
        let extents = [wrong.len() as u64];
        let file = file.clone().numbers("rope_freqs.weight", &extents, wrong);
        assert_mentions(&file.error(), &["rope_freqs.weight"]);
    }
}

#[test]
fn a_directory_with_one_gguf_file_is_that_file() {
    let directory = Directory::new();
    directory.write("some.gguf", Writer::llama().bytes());
    assert!(directory.open().is_ok());
    directory.write("other.gguf", Writer::llama().bytes());
    assert_mentions(&directory.open_error(), &["config.json"]);
}

#[test]
fn what_is_not_supported_is_named() {
    let error = |writer: Writer, parts: &[&str]| assert_mentions(&writer.error(), parts);
    let llama = Writer::llama;
    error(
        Writer::default().text("general.architecture", "mamba"),
        &["\"mamba\"", "llama, qwen2"],
    );
    error(Writer::default(), &["general.architecture"]);
    error(
        llama().u32("llama.expert_count", 8),
        &["llama.expert_used_count is missing"],
    );
    error(
        llama().u32("split.count", 2),
        &["one of 2 parts", "NAME-00001-of-0000N.gguf"],
    );
    error(
        with_tokenizer("t5"),
        &["tokenizer.ggml.model", "\"t5\"", "gpt2"],
    );
    error(
        llama().text("llama.rope.scaling.type", "longrope"),
        &["rope.scaling.type", "longrope"],
    );
    error(
        llama().tensor("x", &[256, 1], 22, &[0; 136]),
        &["\"x\"", "IQ2_S"],
    );
    error(
        llama().tensor("x", &[256, 1], 99, &[0; 136]),
        &["\"x\"", "99"],
    );
    error(
        llama().tensor("x", &[40], 8, &[0; 34]),
        &["\"x\"", "blocks of 32", "Q8_0"],
    );
    error(
        llama().numbers("blk.0.attn_q.weight", &[1, 7], &[0.; 7]),
        &["blk.0.attn_q.weight", "2 heads"],
    );
    error(
        llama().numbers("x", &[1], &[0.]).numbers("x", &[1], &[0.]),
        &["\"x\" twice"],
    );
    error(
        llama().u32("llama.block_count", 2),
        &["\"llama.block_count\" twice"],
    );
}

#[test]
fn scales_that_are_not_finite_are_found() {
    let mut blocks = [0; 2 * 144];
    blocks[144 + 2..144 + 4].copy_from_slice(&0x7c00_u16.to_le_bytes());
    let checkpoint = Writer::llama()
        .tensor("x", &[512], 12, &blocks)
        .open()
        .unwrap();
    assert_eq!(
        checkpoint.tensor("x").unwrap().element_type,
        ElementType::Block(backstop_kernels::BlockFormat::Q4K)
    );
    let error = checkpoint.read("x").unwrap_err().to_string();
    assert_mentions(&error, &["x holds", "element 256"]);
}

#[test]
fn counts_beyond_the_file_are_refused_before_anything_is_allocated() {
    let bytes = Writer::llama().bytes();
    // The numbers of tensors and of values, and the length of the first key.
    for at in [8, 16, 24] {
        let mut damaged = bytes.clone();
        damaged[at..at + 8].copy_from_slice(&(u64::MAX / 16).to_le_bytes());
        let directory = Directory::new();
        directory.write("model.gguf", damaged);
        assert_mentions(&directory.open_error(), &["do not fit into the file"]);
    }
}

#[test]
fn files_cut_anywhere_and_files_with_any_byte_changed_end_in_an_error_or_open() {
    let golden =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/gguf/blocks.gguf");
    let bytes = std::fs::read(golden).unwrap();
    let header_bytes = 2200;
    let directory = Directory::new();
    for length in (0..header_bytes)
        .step_by(7)
        .chain([bytes.len() - 40_000, bytes.len() - 33])
    {
        directory.write("model.gguf", &bytes[..length]);
        directory.open_error();
    }
    let mut random = 1_u32;
    for at in 0..header_bytes {
        let mut damaged = bytes.clone();
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        damaged[at] = (random >> 24) as u8;
        directory.write("model.gguf", &damaged);
        if let Ok(checkpoint) = directory.open() {
            for tensor in checkpoint.tensors() {
                assert!(tensor.bytes <= bytes.len() as u64);
            }
        }
    }
}

/// A small Llama cut into parts: how many tensors there are said to be, and the parts' own.
fn parts(all: u16, of_parts: &[&[&str]]) -> Vec<Writer> {
    let count = of_parts.len() as u16;
    let part = |(number, names): (usize, &&[&str])| {
        let writer = if number == 0 {
            Writer::llama()
        } else {
            Writer::default()
        };
        let writer = writer
            .value("split.no", 2, &(number as u16).to_le_bytes())
            .value("split.count", 2, &count.to_le_bytes())
            .value("split.tensors.count", 5, &i32::from(all).to_le_bytes());
        let numbers = [number as f32; 8];
        names
            .iter()
            .fold(writer, |writer, name| writer.numbers(name, &[8], &numbers))
    };
    of_parts.iter().enumerate().map(part).collect()
}

fn write_parts(directory: &Directory, parts: &[Writer]) {
    let count = parts.len();
    for (index, part) in parts.iter().enumerate() {
        let name = format!("m-{:05}-of-{count:05}.gguf", index + 1);
        directory.write(&name, part.bytes());
    }
}

const NORM: &str = "output_norm.weight";
const INNER: [&str; 2] = ["blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"];

fn three_parts() -> Vec<Writer> {
    parts(4, &[&["token_embd.weight", NORM], &[INNER[0]], &[INNER[1]]])
}

#[test]
fn all_parts_of_a_file_are_one_checkpoint() {
    let directory = Directory::new();
    write_parts(&directory, &three_parts());
    for named in ["", "m-00001-of-00003.gguf", "m-00003-of-00003.gguf"] {
        let checkpoint = Checkpoint::open(&directory.join(named), FAMILIES).unwrap();
        assert_eq!(
            (checkpoint.file_count(), checkpoint.tensors().len()),
            (3, 4)
        );
        assert_eq!(checkpoint.config()["hidden_size"], 8);
        for (name, number) in [
            ("model.norm.weight", 0.0),
            ("model.layers.0.input_layernorm.weight", 1.0),
            ("model.layers.0.post_attention_layernorm.weight", 2.0),
        ] {
            assert_eq!(f32s(&checkpoint, name), [number; 8], "{name}");
        }
    }
}

#[test]
fn parts_that_are_missing_or_of_another_model_are_named() {
    let refused = |change: &dyn Fn(&mut Vec<Writer>), wanted: &[&str]| {
        let directory = Directory::new();
        let mut parts = three_parts();
        change(&mut parts);
        write_parts(&directory, &parts);
        assert_mentions(&directory.open_error(), wanted);
    };
    for missing in ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf"] {
        let directory = Directory::new();
        write_parts(&directory, &three_parts());
        std::fs::remove_file(directory.join(missing)).unwrap();
        assert_mentions(
            &directory.open_error(),
            &["parts of it are missing", missing],
        );
    }
    refused(
        &|parts| parts.swap(1, 2),
        &["m-00002-of-00003.gguf is not part 2"],
    );
    refused(
        &|parts| parts[2] = Writer::llama(),
        &["m-00003-of-00003.gguf is not part 3"],
    );
    refused(
        &|parts| parts[1] = bare_part(1, 3, 5),
        &["m-00002-of-00003.gguf is a part of another model: its split.tensors.count"],
    );
    refused(
        &|parts| parts[1] = bare_part(1, 3, 4).text("general.architecture", "qwen2"),
        &["part of another model: its general.architecture"],
    );
    refused(
        &|parts| parts[1] = bare_part(1, 3, 4),
        &["its parts have 3 tensors, and split.tensors.count is 4"],
    );
    refused(
        &|parts| {
            parts[1] = bare_part(1, 3, 4).numbers(NORM, &[8], &[0.0; 8]);
        },
        &["two tensors stand for model.norm.weight"],
    );
    refused(
        &|parts| {
            parts[1] = Writer::default().value("split.no", 2, &1_u16.to_le_bytes());
        },
        &["m-00002-of-00003.gguf lacks split.count"],
    );
    refused(&|parts| _ = parts.pop(), &["different numbers of parts"]);
}

/// A part without tensors.
fn bare_part(number: u16, count: u16, tensors: i32) -> Writer {
    Writer::default()
        .value("split.no", 2, &number.to_le_bytes())
        .value("split.count", 2, &count.to_le_bytes())
        .value("split.tensors.count", 5, &tensors.to_le_bytes())
}
