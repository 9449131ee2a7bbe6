//! Reading what the configurations of most decoders have in common. Names and defaults are those
//! of the configuration classes of Hugging Face transformers 5.23.

use backstop_kernels::backend::{AttentionShape, Norm};
use backstop_weights::StrictFields;
use serde_json::{Map, Value};

use crate::registry::ArchError;

/// Fields of every family that change nothing about inference, or that are read elsewhere.
const INERT: &[&str] = &[
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "cache_implementation",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "quantization_config",
    "return_dict",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "use_cache",
];

/// Whether a value changes nothing.
type ChangesNothing = fn(&Value) -> bool;

/// Fields that the reference implementation's code for attention masks, caches and rotary embeddings looks up whatever
/// the family, and which of their values change nothing.
const OF_ANY_MODEL: &[(&str, ChangesNothing)] = &[
    ("attention_chunk_size", |_| false),
    ("head_dim", |_| false),
    ("is_causal", |value| value == &Value::from(true)),
    ("is_encoder_decoder", |value| value == &Value::from(false)),
    ("kv_sharing_modes", |_| false),
    ("layer_types", all_attend_to_everything),
    ("number_of_conv_states", |_| false),
    ("per_layer_config", |_| false),
    ("sliding_window", |_| false),
];

/// Layers that a model may have.
const LAYERS_MAX: u32 = 1024;
/// Experts that a layer may have.
const EXPERTS_MAX: u32 = 1024;
/// Widths of anything: no product of a few of them overflows.
const WIDTH_MAX: u32 = 1 << 20;

/// What is known of the fields that a family does not look at here. All others are passed over, since the reference
/// implementation does not look at them either; they are named to the operator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnreadFields {
    /// Change nothing about inference, besides those of every family.
    pub(crate) inert: &'static [&'static str],
    /// The reference implementation computes something else with them than is computed here.
    pub(crate) not_computed: &'static [&'static str],
}

impl UnreadFields {
    pub(crate) const NONE: Self = Self {
        inert: &[],
        not_computed: &[],
    };
}

/// A value, and the fields of the configuration that nobody reads.
pub(crate) type WithUnread<T> = (T, Vec<String>);

/// Reads a whole configuration. Reading goes on after a problem, so that all are reported at once.
pub(crate) fn read<T>(
    architecture: &'static str,
    config: &Map<String, Value>,
    unread: UnreadFields,
    read: impl FnOnce(&mut StrictFields<'_>) -> T,
) -> Result<WithUnread<T>, ArchError> {
    let mut fields = StrictFields::new("config.json", config);
    let value = read(&mut fields);
    let known = known_fields(&mut fields, unread);
    match fields.problems() {
        [] => Ok((value, fields.unread_keys(&known))),
        problems => Err(ArchError::Config {
            architecture,
            problems: problems.to_vec(),
        }),
    }
}

/// Fields that nobody looked at and that change nothing; the other way round, those that would are problems.
fn known_fields<'a>(fields: &mut StrictFields<'a>, unread: UnreadFields) -> Vec<&'a str> {
    let mut known: Vec<&str> = INERT.iter().chain(unread.inert).copied().collect();
    let others: Vec<_> = fields.unread(&known).collect();
    for (name, value) in others {
        match OF_ANY_MODEL.iter().find(|(of_any, _)| *of_any == name) {
            Some((_, changes_nothing)) if changes_nothing(value) => known.push(name),
            Some(_) => fields.not_understood(name, value),
            None if unread.not_computed.contains(&name) => fields.not_understood(name, value),
            None => {}
        }
    }
    known
}

/// Reads the configuration of the text model within that of a model that reads more than text.
pub(crate) fn read_text<T>(
    fields: &mut StrictFields<'_>,
    unread: UnreadFields,
    read: impl FnOnce(&mut StrictFields<'_>) -> T,
) -> Option<T> {
    let Some(mut text) = fields.optional_object("text_config") else {
        fields.problem("text_config is missing");
        return None;
    };
    let value = read(&mut text);
    let known = known_fields(&mut text, unread);
    fields.adopt(text, &known);
    Some(value)
}

/// The same, where fields that nobody reads are problems: no reference implementation says what they mean.
pub(crate) fn read_all<T>(
    architecture: &'static str,
    config: &Map<String, Value>,
    unread: UnreadFields,
    read: impl FnOnce(&mut StrictFields<'_>) -> T,
) -> Result<T, ArchError> {
    let (value, unread) = self::read(architecture, config, unread, read)?;
    if unread.is_empty() {
        return Ok(value);
    }
    let not_understood = |name| format!("config.json: {name} is not understood");
    Err(ArchError::Config {
        architecture,
        problems: unread.into_iter().map(not_understood).collect(),
    })
}

fn all_attend_to_everything(layer_types: &Value) -> bool {
    let types = layer_types.as_array();
    types.is_some_and(|types| types.iter().all(|layer| layer == "full_attention"))
}

/// Shape of a decoder.
#[derive(Clone, Debug)]
pub(crate) struct DecoderShape {
    pub(crate) vocabulary: u32,
    pub(crate) max_position_embeddings: u32,
    pub(crate) hidden: usize,
    pub(crate) num_layers: usize,
    pub(crate) attention: AttentionShape,
    /// The head is the embedding.
    pub(crate) tied: bool,
}

/// What the classes of configurations assume where nothing is said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShapeDefaults {
    /// `None`: the model's width over its query heads.
    pub(crate) head_dim: Option<u32>,
    /// `None`: as many as query heads.
    pub(crate) kv_heads: Option<u32>,
    pub(crate) max_position_embeddings: u32,
    pub(crate) tied: bool,
}

impl ShapeDefaults {
    /// The usual ones, but for how long a sequence may be.
    pub(crate) const fn new(max_position_embeddings: u32) -> Self {
        Self {
            head_dim: None,
            kv_heads: None,
            max_position_embeddings,
            tied: false,
        }
    }
}

impl DecoderShape {
    pub(crate) fn read(fields: &mut StrictFields<'_>, defaults: ShapeDefaults) -> Self {
        let hidden = fields.u32("hidden_size");
        let heads = fields.u32("num_attention_heads");
        let kv_heads = fields.optional_u32("num_key_value_heads");
        let head_dim = fields.optional_u32("head_dim").or(defaults.head_dim);
        let derived = || hidden.checked_div(heads).unwrap_or(0);
        let shape = Self {
            vocabulary: fields.u32("vocab_size"),
            max_position_embeddings: fields
                .optional_u32("max_position_embeddings")
                .unwrap_or(defaults.max_position_embeddings),
            hidden: hidden as usize,
            num_layers: fields.u32("num_hidden_layers").min(LAYERS_MAX + 1) as usize,
            attention: attention_shape(
                heads,
                kv_heads.or(defaults.kv_heads).unwrap_or(heads),
                head_dim.unwrap_or_else(derived),
            ),
            tied: fields
                .optional_bool("tie_word_embeddings")
                .unwrap_or(defaults.tied),
        };
        shape.check(fields);
        shape
    }

    fn check(&self, fields: &mut StrictFields<'_>) {
        let attention = self.attention;
        if attention.kv_heads == 0 || !attention.heads.is_multiple_of(attention.kv_heads) {
            fields.problem("num_attention_heads must be a multiple of num_key_value_heads");
        }
        if attention.head_dim == 0 || !attention.head_dim.is_multiple_of(2) {
            fields.problem("head_dim must be even and positive");
        }
        if self.hidden == 0 || self.vocabulary == 0 || attention.heads == 0 {
            fields.problem("hidden_size, vocab_size and num_attention_heads must be positive");
        }
        let heads = attention.heads.checked_mul(attention.head_dim);
        if heads.is_none_or(|width| width > WIDTH_MAX) || self.hidden > WIDTH_MAX as usize {
            fields.problem(format!(
                "hidden_size and all heads together must be at most {WIDTH_MAX}"
            ));
        }
        if self.num_layers == 0 || self.num_layers > LAYERS_MAX as usize {
            fields.problem(format!(
                "num_hidden_layers must lie between 1 and {LAYERS_MAX}"
            ));
        }
    }

    /// `value` for each layer; for none if there are too many.
    pub(crate) fn layers<T>(&self, value: impl Fn(usize) -> T) -> Vec<T> {
        let count = if self.num_layers > LAYERS_MAX as usize {
            0
        } else {
            self.num_layers
        };
        (0..count).map(value).collect()
    }
}

/// Heads whose products are divided by the root of their length.
fn attention_shape(heads: u32, kv_heads: u32, head_dim: u32) -> AttentionShape {
    AttentionShape {
        heads,
        kv_heads,
        head_dim,
        scale: (head_dim as f32).powf(-0.5),
    }
}

/// RMSNorm with the epsilon that is given, or this one.
pub(crate) fn rms_norm(fields: &mut StrictFields<'_>, default: f64) -> Norm {
    let epsilon = fields.optional_f64("rms_norm_eps").unwrap_or(default) as f32;
    Norm::Rms { epsilon }
}

/// A positive width.
pub(crate) fn width(fields: &mut StrictFields<'_>, name: &str) -> usize {
    let width = fields.u32(name);
    if width == 0 || width > WIDTH_MAX {
        fields.problem(format!("{name} must lie between 1 and {WIDTH_MAX}"));
    }
    width.clamp(1, WIDTH_MAX) as usize
}

/// The number of experts, which is required unless there is a default.
pub(crate) fn num_experts(
    fields: &mut StrictFields<'_>,
    name: &str,
    default: Option<u32>,
) -> usize {
    let count = match default {
        Some(default) => fields.optional_u32(name).unwrap_or(default),
        None => fields.u32(name),
    };
    if count == 0 || count > EXPERTS_MAX {
        fields.problem(format!("{name} must lie between 1 and {EXPERTS_MAX}"));
    }
    count.clamp(1, EXPERTS_MAX) as usize
}

/// A field that is false unless it is given.
pub(crate) fn flag(fields: &mut StrictFields<'_>, name: &str) -> bool {
    fields.optional_bool(name).unwrap_or(false)
}

/// Experts of each token, which must be some of all.
pub(crate) fn experts_per_token(
    fields: &mut StrictFields<'_>,
    default: Option<u32>,
    num_experts: usize,
) -> u32 {
    let chosen = fields.optional_u32("num_experts_per_tok").or(default);
    let chosen = chosen.unwrap_or(0);
    if !(1..=num_experts).contains(&(chosen as usize)) {
        fields.problem("num_experts_per_tok must lie between 1 and the number of experts");
    }
    chosen
}

/// A list of two-valued strings: `true` where the second value stands.
pub(crate) fn kinds(
    fields: &mut StrictFields<'_>,
    name: &str,
    values: [&str; 2],
    num_layers: usize,
) -> Option<Vec<bool>> {
    let strings = fields.optional_string_list(name)?;
    if strings.iter().any(|kind| !values.contains(&kind.as_str())) {
        fields.problem(format!(
            "{name} may hold only {:?} and {:?}",
            values[0], values[1]
        ));
    }
    if strings.len() != num_layers {
        fields.problem(format!("{name} must have num_hidden_layers entries"));
        return None;
    }
    Some(strings.iter().map(|kind| kind == values[1]).collect())
}

/// Which layers slide.
pub(crate) fn sliding_layers(
    fields: &mut StrictFields<'_>,
    num_layers: usize,
) -> Option<Vec<bool>> {
    let values = ["full_attention", "sliding_attention"];
    kinds(fields, "layer_types", values, num_layers)
}

/// The windows of Qwen's models, of which the later layers slide.
pub(crate) fn later_windows(
    fields: &mut StrictFields<'_>,
    shape: &DecoderShape,
) -> Vec<Option<u32>> {
    let first = fields.optional_u32("max_window_layers").unwrap_or(28) as usize;
    optional_windows(fields, shape, Some(4096), |layer| layer >= first)
}

/// Windows that `use_sliding_window` switches on, of the layers that `layer_types` names, or else
/// of those that slide by themselves. A window of `w` means `w` visible keys.
pub(crate) fn optional_windows(
    fields: &mut StrictFields<'_>,
    shape: &DecoderShape,
    default: Option<u32>,
    slides: impl Fn(usize) -> bool,
) -> Vec<Option<u32>> {
    let window = match flag(fields, "use_sliding_window") {
        true => fields.optional_u32("sliding_window").or(default),
        // Whatever it may be.
        false => fields.value("sliding_window").and(None),
    };
    if window == Some(0) {
        fields.problem("sliding_window must be positive");
    }
    let kinds = sliding_layers(fields, shape.num_layers);
    let sliding = shape.layers(|layer| match &kinds {
        Some(kinds) => kinds[layer],
        None => window.is_some() && slides(layer),
    });
    if window.is_none() && sliding.contains(&true) {
        fields.problem("layer_types has sliding_attention, and use_sliding_window and sliding_window are not both set");
    }
    let windows = sliding.into_iter().map(|slides| window.filter(|_| slides));
    windows.collect()
}

/// One window for all layers, or none. The class's default counts where the field is absent, and
/// null means no window.
pub(crate) fn common_window(fields: &mut StrictFields<'_>, default: Option<u32>) -> Option<u32> {
    let given = fields.optional_u32("sliding_window");
    let window = match fields.contains("sliding_window") {
        true => given,
        false => default,
    };
    if window == Some(0) {
        fields.problem("sliding_window must be positive");
    }
    window
}
