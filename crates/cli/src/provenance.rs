//! What is served, in two digests: one of the weights, one of everything that changes answers.

use backstop_models::{CachedAs, Manifest, digest_of, digest_of_text};
use backstop_protocol::ModelOrigin;
use backstop_server::Provenance;
use backstop_weights::{Checkpoint, Fingerprint, TokenizerSource};

use crate::args::ServeArgs;
use crate::load::OpenModel;
use crate::start::Prepared;

/// Digits of the digest in `system_fingerprint`.
pub(crate) const SETTINGS_DIGITS: usize = 12;

/// Digits of a digest that are shown.
const WEIGHTS_DIGITS: usize = 16;

/// What answers say of where they come from. Reads a little of each weight file.
pub(crate) fn provenance(
    args: &ServeArgs,
    open: &OpenModel,
    prepared: &Prepared,
) -> Result<Provenance, String> {
    let weights = weights_digest(open)?;
    let mut settings = Fingerprint::new();
    settings.add("weights", &weights);
    let texts = open.source.checkpoint.add_texts(&mut settings);
    texts.map_err(|error| error.to_string())?;
    settings.add("chat format", open.chat_format.id);
    settings.add("defaults", format!("{:?}", open.text.defaults));
    settings.add("fill in the middle", format!("{:?}", open.text.fim));
    settings.add(
        "kv cache",
        format!("{:?}", prepared.limits.sizes.kv_element),
    );
    settings.add("arithmetic", prepared.plan.arithmetic());
    if args.answers.allow_special_tokens_in_content {
        settings.add("special tokens in content", "");
    }
    let settings = settings.digits(SETTINGS_DIGITS);
    let origin = origin(open.manifest.as_ref(), &open.source.checkpoint)?;
    let provenance = Provenance::new(&open.name, &weights, &settings).with_origin(origin);
    tracing::info!("{}: {}", open.name, told(provenance.origin()));
    Ok(provenance)
}

/// Where a model comes from, and its texts.
pub(crate) fn origin(
    manifest: Option<&Manifest>,
    checkpoint: &Checkpoint,
) -> Result<ModelOrigin, String> {
    let cached = CachedAs::of(checkpoint.directory()).filter(|_| manifest.is_none());
    let (repository, revision) = cached
        .map(|cached| (cached.repository, cached.revision))
        .unzip();
    let tokenizer = match checkpoint.tokenizer() {
        TokenizerSource::Embedded(_) => None,
        TokenizerSource::File(path) => {
            let digest = digest_of(&path, &|_| {});
            Some(digest.map_err(|error| format!("{}: {error}", path.display()))?)
        }
    };
    Ok(ModelOrigin {
        repository: repository.or_else(|| manifest?.repository.clone()),
        revision: revision.or_else(|| manifest?.revision.clone()),
        license: manifest.and_then(|manifest| manifest.licence.clone()),
        weights: None,
        tokenizer,
        chat_template: checkpoint.default_chat_template().map(digest_of_text),
    })
}

/// The same as a line of the log.
fn told(origin: &ModelOrigin) -> String {
    let digests = [
        ("weights", &origin.weights),
        ("tokenizer", &origin.tokenizer),
        ("chat template", &origin.chat_template),
    ];
    let shown = digests.map(|(what, digest)| {
        let digits = digest
            .as_deref()
            .and_then(|digest| digest.get(..WEIGHTS_DIGITS));
        digits.map(|digits| format!("{what} {digits}"))
    });
    let mut parts: Vec<String> = shown.into_iter().flatten().collect();
    if let Some(repository) = &origin.repository {
        let revision = origin.revision.as_deref().unwrap_or("an unknown commit");
        parts.push(format!("from {repository} at {revision}"));
    }
    let licence = origin.license.as_deref().unwrap_or("unknown");
    parts.push(format!("licence {licence}"));
    parts.join(", ")
}

/// The digest of a model's weights, in 16 hexadecimal digits. Made-up weights follow from the
/// configuration.
pub(crate) fn weights_digest(open: &OpenModel) -> Result<String, String> {
    if open.source.synthetic.is_some() {
        let mut fingerprint = Fingerprint::new();
        let texts = open.source.checkpoint.add_texts(&mut fingerprint);
        texts.map_err(|error| error.to_string())?;
        return Ok(fingerprint.digits(16));
    }
    let manifest = open.manifest.as_ref();
    let recorded = manifest.and_then(|manifest| manifest.files.as_ref());
    let digest = open.source.checkpoint.weights_digest(recorded);
    digest.map_err(|error| error.to_string())
}
