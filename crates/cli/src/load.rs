//! From a model's name to everything that is known of it before its weights are there.

use std::ffi::OsStr;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_arch::{ModelSpec, gguf_families};
use backstop_engine::{Lifecycle, StartPhase, Timeline};
use backstop_executor::ModelSource;
use backstop_loader::{Fitted, Mixture, SyntheticWeights, fit};
use backstop_models::{LocateError, Manifest, ModelLocator, ServingDefaults};
use backstop_server::GenerationDefaults;
use backstop_text::format::FORMATS;
use backstop_text::{ChatFormat, ChatTemplates, FimTokens, Tokenizer, chat_format, detect};
use backstop_types::TokenId;
use backstop_weights::{Checkpoint, EndToken, TokenizerSource};

use crate::args::{LoadFormat, ModelArgs};
use crate::{integrity, unread};

pub(crate) const DEFAULT_MODEL: &str = "demo";
/// Every start makes the same weights, so that runs can be compared.
const SYNTHETIC_SEED: u64 = 0;

/// A checkpoint and everything that its text files say; no weights yet.
pub(crate) struct OpenModel {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) source: ModelSource,
    pub(crate) text: ModelText,
    pub(crate) chat_format: &'static ChatFormat,
    /// What whoever serves it should know of its files.
    pub(crate) warnings: Vec<String>,
}

/// How to turn requests into tokens and back, and how to sample by default.
#[derive(Clone)]
pub(crate) struct ModelText {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) templates: Option<Arc<ChatTemplates>>,
    /// The tokens that end an answer.
    pub(crate) ends: Vec<EndToken>,
    pub(crate) bos_token: String,
    pub(crate) eos_token: String,
    pub(crate) pad_token: Option<String>,
    pub(crate) fim: Option<FimTokens>,
    pub(crate) defaults: GenerationDefaults,
}

impl OpenModel {
    pub(crate) fn spec(&self) -> &ModelSpec {
        self.source.model.spec()
    }

    /// Any valid prompt, for a model without a recorded answer.
    pub(crate) fn warm_up_prompt(&self) -> Result<Vec<TokenId>, String> {
        let tokens = self
            .text
            .tokenizer
            .encode("def main():", true)
            .map_err(|error| format!("tokenizer of {}: {error}", self.name))?;
        if tokens.is_empty() {
            Ok(vec![0])
        } else {
            Ok(tokens)
        }
    }
}

impl ModelText {
    /// The ids of the tokens that end an answer.
    pub(crate) fn end_ids(&self) -> Vec<TokenId> {
        self.ends.iter().map(|end| end.id).collect()
    }

    /// What ends an answer, and who says so, for a line of the log.
    pub(crate) fn ends_told(&self) -> String {
        if self.ends.is_empty() {
            return "nothing ends an answer but its length: no file of the model names a token \
                    that does"
                .to_owned();
        }
        let told = self.ends.iter().map(|end| {
            let token = self.tokenizer.id_to_token(end.id);
            let shown =
                token.map_or_else(|| format!("token {}", end.id), |text| format!("{text:?}"));
            format!("{shown} ({})", end.source)
        });
        format!(
            "an answer ends with {}",
            told.collect::<Vec<_>>().join(", ")
        )
    }

    fn read(checkpoint: &Checkpoint, manifest: Option<&Manifest>) -> Result<Self, String> {
        let tokenizer = read_tokenizer(checkpoint)?;
        let templates = ChatTemplates::from_sources(checkpoint.chat_templates())
            .map_err(|error| error.to_string())?;
        if let Some(templates) = templates.as_ref().filter(|some| some.names().len() > 1) {
            let names: Vec<&str> = templates.names().collect();
            tracing::info!("chat templates: {}", names.join(", "));
        }
        for (name, doubtful) in templates.iter().flat_map(ChatTemplates::doubtful) {
            let doubtful = doubtful.join(", ");
            tracing::warn!(
                "chat template {name} fails where it reaches what is unknown: {doubtful}"
            );
        }
        let tokens = checkpoint.special_tokens();
        let generation = checkpoint.generation_config();
        let serving = manifest
            .map(|manifest| manifest.serving.clone())
            .unwrap_or_default();
        let ends = checkpoint.end_tokens(&tokenizer);
        let fim = find_fim_tokens(&tokenizer, checkpoint, &serving)?;
        let number = |ours: Option<f64>, theirs: Option<f64>| ours.or(theirs).map(|x| x as f32);
        Ok(Self {
            tokenizer: Arc::new(tokenizer),
            fim,
            templates: templates.map(Arc::new),
            bos_token: tokens.bos.clone().unwrap_or_default(),
            eos_token: tokens.eos.clone().unwrap_or_default(),
            pad_token: tokens.pad.clone(),
            defaults: GenerationDefaults {
                temperature: number(serving.temperature, generation.temperature),
                top_p: number(serving.top_p, generation.top_p),
                top_k: generation.top_k,
                min_p: generation.min_p.map(|x| x as f32),
                repetition_penalty: generation.repetition_penalty.map(|x| x as f32),
            },
            ends,
        })
    }
}

/// The tokens by which a model fills in the middle: those of the family that the manifest names, those
/// that a GGUF file names, or what the vocabulary has.
fn find_fim_tokens(
    tokenizer: &Tokenizer,
    checkpoint: &Checkpoint,
    serving: &ServingDefaults,
) -> Result<Option<FimTokens>, String> {
    match (&serving.fill_in_the_middle, checkpoint.tokenizer()) {
        (Some(id), _) if id == "none" => Ok(None),
        (Some(id), _) => FimTokens::named(tokenizer, id).map(Some),
        (None, TokenizerSource::File(_)) => Ok(FimTokens::detect(tokenizer)),
        (None, TokenizerSource::Embedded(embedded)) => {
            Ok(FimTokens::from_ids(tokenizer, embedded.fim))
        }
    }
}

/// The tokenizer in its own files, or the one in a GGUF file.
fn read_tokenizer(checkpoint: &Checkpoint) -> Result<Tokenizer, String> {
    match checkpoint.tokenizer() {
        TokenizerSource::File(_) => {
            Tokenizer::from_directory(checkpoint.directory()).map_err(|error| error.to_string())
        }
        TokenizerSource::Embedded(embedded) => {
            let path = checkpoint.directory().display();
            if embedded.names_no_rule() {
                tracing::warn!(
                    "{path} does not say how its model cuts texts (tokenizer.ggml.pre): they are cut as \
                     llama.cpp does by default, and answers may be worse for it; convert the model again"
                );
            }
            Tokenizer::from_vocabulary(&embedded.vocabulary)
                .map_err(|error| format!("{path}: {error}"))
        }
    }
}

/// Finds the model and reads its text files.
pub(crate) fn open(args: &ModelArgs) -> Result<OpenModel, String> {
    open_timed(args, Lifecycle::new().timeline())
}

/// The same as a part of a start.
pub(crate) fn open_timed(args: &ModelArgs, timeline: &Timeline) -> Result<OpenModel, String> {
    timeline.begin(StartPhase::Texts);
    if args.quantization.is_some() && args.load_format != Some(LoadFormat::Synthetic) {
        return Err(
            "weights are computed with as they are stored: --quantization is for --load-format synthetic alone"
                .to_owned(),
        );
    }
    let wanted = args.model.as_deref().unwrap_or(DEFAULT_MODEL);
    let locator = ModelLocator::from_environment();
    match args.load_format.unwrap_or(LoadFormat::Auto) {
        LoadFormat::Auto | LoadFormat::Safetensors => {
            open_checkpoint(args, &locator, wanted, timeline)
        }
        LoadFormat::Synthetic => open_shape(args, &locator, wanted),
    }
}

fn open_checkpoint(
    args: &ModelArgs,
    locator: &ModelLocator,
    wanted: &str,
    timeline: &Timeline,
) -> Result<OpenModel, String> {
    let located = locator.locate(wanted).map_err(|error| match &error {
        LocateError::NoWeights {
            model_type: Some(model_type),
            ..
        } if !backstop_arch::names().contains(&model_type.as_str()) => {
            let known = backstop_arch::names().join(", ");
            format!("{error}; this build does not compute model_type {model_type}, only {known}")
        }
        LocateError::NoWeights { .. } if locator.locate_shape(wanted).is_ok() => {
            format!("{error}; --load-format synthetic does without them, for measurements")
        }
        _ => error.to_string(),
    })?;
    timeline.begin(StartPhase::Verification);
    integrity::check(&located, &args.integrity)?;
    timeline.begin(StartPhase::Texts);
    let name = located.name();
    let checkpoint = Checkpoint::open(&located.directory, &gguf_families())
        .map_err(|error| error.to_string())?;
    let is_gguf = checkpoint.directory().extension() == Some(OsStr::new("gguf"));
    if is_gguf && args.load_format == Some(LoadFormat::Safetensors) {
        return Err(format!(
            "{} is a GGUF file, and --load-format asks for safetensors",
            checkpoint.directory().display()
        ));
    }
    let mut checkpoint = with_overrides(args, checkpoint)?;
    let manifest = located.manifest.map(|(_, manifest)| manifest);
    let text = ModelText::read(&checkpoint, manifest.as_ref())?;
    report_unread(args, &checkpoint, &located.directory)?;
    let fitted = fit(&mut checkpoint);
    let Fitted { model, warnings } =
        fitted.map_err(|error| format!("{}: {error}", located.directory.display()))?;
    Ok(OpenModel {
        name,
        chat_format: find_chat_format(args, manifest.as_ref(), &text, model.spec())?,
        source: ModelSource {
            model,
            checkpoint,
            synthetic: None,
        },
        directory: located.directory,
        manifest,
        text,
        warnings,
    })
}

/// A model whose weights will be made. Where its tokenizer is not at hand, that of the demo model
/// stands in.
fn open_shape(args: &ModelArgs, locator: &ModelLocator, wanted: &str) -> Result<OpenModel, String> {
    if args.integrity.verify || args.integrity.require_signature.is_some() {
        return Err(
            "made-up weights have neither digests nor a signature: leave out --verify and \
                    --require-signature, or --load-format synthetic"
                .to_owned(),
        );
    }
    let message = |error: LocateError| error.to_string();
    let shape = locator.locate_shape(wanted).map_err(message)?;
    let texts = match shape.texts {
        Some(texts) => texts,
        None => locator.locate(DEFAULT_MODEL).map_err(message)?.directory,
    };
    let checkpoint = Checkpoint::open_shape(&shape.config, &texts, &gguf_families());
    let mut checkpoint = with_overrides(args, checkpoint.map_err(|error| error.to_string())?)?;
    let about = |problem: &dyn Display| format!("{}: {problem}", shape.config.display());
    let model = backstop_arch::build(checkpoint.config()).map_err(|error| about(&error))?;
    report_unread(args, &checkpoint, &shape.config)?;
    let synthetic = match args
        .quantization
        .or_else(|| mixture_of(shape.manifest.as_ref()))
    {
        Some(mixture) => {
            let made = mixture.make_up(&mut checkpoint, model.spec(), SYNTHETIC_SEED);
            made.map_err(|error| about(&error))?;
            None
        }
        None => {
            let made = SyntheticWeights::new(&checkpoint, model.spec(), SYNTHETIC_SEED);
            Some(made.map_err(|error| about(&error))?)
        }
    };
    let mut text = ModelText::read(&checkpoint, shape.manifest.as_ref())?;
    let tokenizer = Arc::into_inner(text.tokenizer).expect("nobody else has it yet");
    let vocabulary = model.spec().vocabulary_size as usize;
    text.tokenizer = Arc::new(tokenizer.with_filler_tokens(vocabulary));
    let chat_format = find_chat_format(args, shape.manifest.as_ref(), &text, model.spec())?;
    let name = format!("{}-synthetic", shape.name);
    tracing::warn!(
        "{name} has made-up weights: its answers are noise, and only their speed means something"
    );
    Ok(OpenModel {
        name,
        directory: shape.config,
        // Of a manifest only the defaults concern noise.
        manifest: shape.manifest.map(|manifest| Manifest {
            canary: None,
            files: None,
            ..manifest
        }),
        text,
        chat_format,
        warnings: Vec::new(),
        source: ModelSource {
            model,
            checkpoint,
            synthetic,
        },
    })
}

/// The formats in which the file that a manifest names has its weights.
fn mixture_of(manifest: Option<&Manifest>) -> Option<Mixture> {
    Mixture::named(manifest?.quantization.as_deref()?)
}

/// How the model marks the parts of its answers. Its template says more than its architecture:
/// fine-tuned models often have another family's format.
fn find_chat_format(
    args: &ModelArgs,
    manifest: Option<&Manifest>,
    text: &ModelText,
    spec: &ModelSpec,
) -> Result<&'static ChatFormat, String> {
    let of_manifest = || manifest?.serving.chat_format.as_deref();
    let of_template = || detect(text.templates.as_ref()?.for_tools().source());
    let named = args.chat_format.as_deref().or_else(of_manifest);
    let id = named.or_else(of_template).unwrap_or(spec.chat_format);
    chat_format(id).ok_or_else(|| {
        let known: Vec<&str> = FORMATS.iter().map(|format| format.id).collect();
        format!(
            "there is no chat format {id:?}; known are: {}",
            known.join(", ")
        )
    })
}

fn with_overrides(args: &ModelArgs, mut checkpoint: Checkpoint) -> Result<Checkpoint, String> {
    if let Some(overrides) = &args.hf_overrides {
        checkpoint
            .apply_overrides(overrides)
            .map_err(|error| error.to_string())?;
    }
    Ok(checkpoint)
}

fn report_unread(args: &ModelArgs, checkpoint: &Checkpoint, origin: &Path) -> Result<(), String> {
    unread::report(checkpoint, args.strict_config)
        .map_err(|reason| format!("{}: {reason}", origin.display()))
}
