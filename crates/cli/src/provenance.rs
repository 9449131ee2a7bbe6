//! What is served, in two digests: one of the weights, one of everything that changes answers.

use backstop_server::Provenance;
use backstop_weights::Fingerprint;

use crate::args::ServeArgs;
use crate::load::OpenModel;
use crate::start::Prepared;

/// Digits of the digest in `system_fingerprint`.
pub(crate) const SETTINGS_DIGITS: usize = 12;

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
    Ok(Provenance::new(&open.name, &weights, &settings))
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
