//! The draft head that `--speculative-config` names: found and read beside the model.

use backstop_arch::ModelSpec;
use backstop_executor::DraftHeadSource;
use backstop_models::ModelLocator;
use backstop_weights::Checkpoint;

use crate::args::{IntegrityArgs, ModelArgs};
use crate::integrity;

/// The head, compared with the model that it is to guess for; `None` if the settings name none.
pub(crate) fn open(args: &ModelArgs, model: &ModelSpec) -> Result<Option<DraftHeadSource>, String> {
    let Some(config) = &args.speculative_config else {
        return Ok(None);
    };
    let Some(choice) = config.head()? else {
        return Ok(None);
    };
    let named = |error: String| format!("model in --speculative-config: {error}");
    let located = ModelLocator::from_environment().locate(choice.model);
    let located = located.map_err(|error| named(error.to_string()))?;
    // A signature that is named is the model's; the head's lies beside it.
    let integrity = IntegrityArgs {
        signature: None,
        ..args.integrity.clone()
    };
    integrity::check(&located, &integrity).map_err(named)?;
    let directory = located.directory;
    let checkpoint = Checkpoint::open(&directory, &[]).map_err(|error| named(error.to_string()))?;
    let head = DraftHeadSource::new(checkpoint, model, choice.num_tokens);
    head.map(Some)
        .map_err(|error| named(format!("{}: {error}", directory.display())))
}
