//! Models that make vectors and scores: from settings to what the server serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use backstop_models::{LocateError, LocatedModel, ModelLocator};
use backstop_server::{Provenance, ServedEncoder};
use backstop_types::{Encoder, EncoderInputFault, EncoderKind};
use backstop_weights::{Checkpoint, Fingerprint};

use crate::args::{CandleChoice, DeviceChoice, EncoderArgs, IntegrityArgs, ModelArgs};
use crate::integrity;
use crate::provenance::{self, SETTINGS_DIGITS};
use crate::serve::now_s;

/// Where sentence-transformers has a network that does not lie beside its `modules.json`.
const NETWORK_DIRECTORY: &str = "0_Transformer";
/// Why there are none in a build without what computes them.
const NOT_BUILT: &str =
    "this build computes no embeddings and rankings; build it with the feature candle";
/// What an encoder computes before it is served.
const WARM_UP_TEXT: &str = "The server is about to start.";

/// An encoder that is to be served. Its weights are not loaded.
#[derive(Debug)]
pub(crate) struct PlannedEncoder {
    kind: Wanted,
    directory: PathBuf,
    device: DeviceChoice,
    /// The directory's.
    pub(crate) name: String,
    pub(crate) names: Vec<String>,
    pub(crate) provenance: Provenance,
}

/// What an encoder is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Vectors,
    Scores,
}

impl Wanted {
    fn flag(self) -> &'static str {
        match self {
            Self::Vectors => "--embedding-model",
            Self::Scores => "--reranker-model",
        }
    }

    fn names_flag(self) -> &'static str {
        match self {
            Self::Vectors => "--served-embedding-name",
            Self::Scores => "--served-reranker-name",
        }
    }
}

/// The encoders that settings ask for. What cannot be opened is an error before the port is bound.
pub(crate) fn planned(
    args: &EncoderArgs,
    model: &ModelArgs,
) -> Result<Vec<PlannedEncoder>, String> {
    let wanted = [
        (
            Wanted::Vectors,
            &args.embedding_model,
            &args.served_embedding_name,
        ),
        (
            Wanted::Scores,
            &args.reranker_model,
            &args.served_reranker_name,
        ),
    ];
    let mut planned = Vec::new();
    for (kind, directory, names) in wanted {
        match directory {
            Some(directory) => planned.push(PlannedEncoder {
                device: model.device(),
                ..PlannedEncoder::on_cpu(kind, directory, names, &model.integrity)?
            }),
            None if names.is_empty() => {}
            None => {
                let (names, model) = (kind.names_flag(), kind.flag());
                return Err(format!("{names} is given, and no {model}"));
            }
        }
    }
    match planned.is_empty() || cfg!(feature = "candle") {
        true => Ok(planned),
        false => Err(NOT_BUILT.to_owned()),
    }
}

/// Refuses two models under one name: nobody could tell which is meant.
pub(crate) fn check_names(
    generating: &[String],
    encoders: &[PlannedEncoder],
) -> Result<(), String> {
    let all = generating
        .iter()
        .chain(encoders.iter().flat_map(|encoder| &encoder.names));
    let mut names: Vec<&String> = all.filter(|name| *name != "*").collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!(
            "two models are called {:?}: choose with --served-model-name, --served-embedding-name \
             or --served-reranker-name",
            pair[0]
        )),
        None => Ok(()),
    }
}

impl PlannedEncoder {
    fn on_cpu(
        kind: Wanted,
        wanted: &Path,
        names: &[String],
        integrity: &IntegrityArgs,
    ) -> Result<Self, String> {
        let failed = |reason: String| format!("{} {}: {reason}", kind.flag(), wanted.display());
        let located = locate(wanted).map_err(failed)?;
        // A signature that is named is that of the model that generates.
        let integrity = IntegrityArgs {
            signature: None,
            ..integrity.clone()
        };
        integrity::check(&located, &integrity).map_err(failed)?;
        let name = located.name();
        let names = match names {
            [] => vec![name.clone()],
            names => names.to_vec(),
        };
        Ok(Self {
            kind,
            device: DeviceChoice::Cpu,
            names,
            provenance: provenance(&located, &name).map_err(failed)?,
            directory: located.directory,
            name,
        })
    }

    /// What to try once it is served, as an argument of `curl`'s.
    pub(crate) fn example(&self) -> (&'static str, String) {
        let name = self.names.iter().find(|name| *name != "*");
        let name = name.map_or("any", String::as_str);
        match self.kind {
            Wanted::Vectors => (
                "/v1/embeddings",
                format!("{{\"model\": \"{name}\", \"input\": \"Hello\"}}"),
            ),
            Wanted::Scores => (
                "/v1/rerank",
                format!(
                    "{{\"model\": \"{name}\", \"query\": \"Hello\", \"documents\": [\"Hi\", \"No\"]}}"
                ),
            ),
        }
    }

    /// Whether it is to be computed on a GPU.
    pub(crate) fn on_gpu(&self) -> bool {
        matches!(
            self.device,
            DeviceChoice::Candle(CandleChoice::Metal | CandleChoice::Cuda(_))
        )
    }

    /// Loads it and computes something. It may take its time.
    pub(crate) fn load(self) -> Result<ServedEncoder, String> {
        let failed = |reason: String| {
            let place = self.directory.display();
            format!("{} {place}: {reason}", self.kind.flag())
        };
        let started = Instant::now();
        let encoder = open(&self.directory, self.device).map_err(failed)?;
        let facts = encoder.facts();
        let kind = match facts.kind {
            EncoderKind::Embedding { .. } => Wanted::Vectors,
            EncoderKind::Relevance => Wanted::Scores,
        };
        if kind != self.kind {
            let other = kind.flag();
            return Err(failed(format!("the model is for {other}, by its files")));
        }
        warm_up(encoder.as_ref()).map_err(failed)?;
        tracing::info!(
            "{} ({}) after {:.1} s, for texts of up to {} tokens",
            self.name,
            facts.architecture,
            started.elapsed().as_secs_f32(),
            facts.max_tokens,
        );
        Ok(ServedEncoder {
            names: self.names,
            root: self.name,
            created_s: now_s(),
            provenance: self.provenance,
            encoder,
        })
    }
}

/// A directory, or the model of the store that has this name.
fn locate(wanted: &Path) -> Result<LocatedModel, String> {
    let located = match (wanted.is_dir(), wanted.to_str()) {
        (false, Some(name)) => ModelLocator::from_environment().locate(name),
        _ => LocatedModel::at(wanted).map_err(LocateError::from),
    };
    let located = located.map_err(|error| error.to_string())?;
    let found = located.directory.metadata();
    found.map_err(|error| error.to_string())?;
    Ok(located)
}

/// The encoder in a directory, with its weights.
#[cfg(feature = "candle")]
fn open(directory: &Path, device: DeviceChoice) -> Result<Arc<dyn Encoder>, String> {
    use backstop_encoders::{EncoderDevice, open_encoder};
    let device = match device {
        DeviceChoice::Candle(CandleChoice::Metal) => EncoderDevice::Metal(0),
        DeviceChoice::Candle(CandleChoice::Cuda(number)) => EncoderDevice::Cuda(number as usize),
        DeviceChoice::Candle(CandleChoice::Cpu)
        | DeviceChoice::Auto
        | DeviceChoice::Cpu
        | DeviceChoice::Cuda(_) => EncoderDevice::Cpu,
    };
    open_encoder(directory, device).map_err(|error| error.to_string())
}

/// None: what computes encoders was left out.
#[cfg(not(feature = "candle"))]
fn open(_: &Path, _: DeviceChoice) -> Result<Arc<dyn Encoder>, String> {
    Err(NOT_BUILT.to_owned())
}

/// Computes something, so that what cannot be computed is never served.
fn warm_up(encoder: &dyn Encoder) -> Result<(), String> {
    let input = match encoder.facts().kind {
        EncoderKind::Embedding { .. } => encoder.tokens(WARM_UP_TEXT, true),
        EncoderKind::Relevance => encoder.pair_tokens("Who?", WARM_UP_TEXT, true),
    };
    let input = input.map_err(|fault| match fault {
        EncoderInputFault::TooLong { .. } => "it takes too few tokens".to_owned(),
        EncoderInputFault::NotTokenized => "its tokenizer fails".to_owned(),
    })?;
    let rows = encoder.encode(&[input])?;
    let is_finite = rows.iter().flatten().all(|number| number.is_finite());
    match rows.as_slice() {
        [row] if is_finite && !row.is_empty() => Ok(()),
        _ => Err("it computes something that is no number".to_owned()),
    }
}

/// What answers say of where they come from. Reads a little of each weight file.
fn provenance(located: &LocatedModel, name: &str) -> Result<Provenance, String> {
    let directory = &located.directory;
    let nested = directory.join(NETWORK_DIRECTORY);
    let network = match nested.is_dir() {
        true => nested,
        false => directory.clone(),
    };
    let checkpoint = Checkpoint::open(&network, &[]).map_err(|error| error.to_string())?;
    let weights = checkpoint.weights_digest(None);
    let weights = weights.map_err(|error| error.to_string())?;
    let mut settings = Fingerprint::new();
    settings.add("weights", &weights);
    let texts = checkpoint.add_texts(&mut settings);
    texts.map_err(|error| error.to_string())?;
    let settings = settings.digits(SETTINGS_DIGITS);
    let manifest = located.manifest.as_ref().map(|(_, manifest)| manifest);
    let origin = provenance::origin(manifest, &checkpoint)?;
    Ok(Provenance::new(name, &weights, &settings).with_origin(origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::serve_args;

    fn planned(line: &[&str]) -> Result<Vec<PlannedEncoder>, String> {
        super::planned(&serve_args(line).encoders, &ModelArgs::default())
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert!(planned(&[]).is_ok_and(|encoders| encoders.is_empty()));
        let missing = planned(&["--reranker-model", "/nowhere"]).unwrap_err();
        assert!(
            missing.starts_with("--reranker-model /nowhere: "),
            "{missing}"
        );
        let nameless = planned(&["--served-embedding-name", "a"]).unwrap_err();
        assert!(nameless.ends_with("no --embedding-model"), "{nameless}");
    }

    #[test]
    fn two_models_have_two_names() {
        let encoder = |kind, name: &str| PlannedEncoder {
            kind,
            device: DeviceChoice::Auto,
            directory: PathBuf::new(),
            name: name.to_owned(),
            names: vec![name.to_owned(), "*".to_owned()],
            provenance: Provenance::default(),
        };
        let generating = ["north".to_owned(), "*".to_owned()];
        let encoders = [encoder(Wanted::Vectors, "a"), encoder(Wanted::Scores, "b")];
        assert!(check_names(&generating, &encoders).is_ok());
        let same = [encoder(Wanted::Vectors, "north")];
        let refused = check_names(&generating, &same).unwrap_err();
        assert!(refused.contains("\"north\""), "{refused}");
    }
}
