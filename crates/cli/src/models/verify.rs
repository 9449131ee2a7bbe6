//! `backstop models verify`.

use std::process::ExitCode;

use backstop_models::ModelLocator;

use crate::args::VerifyArgs;
use crate::integrity;

#[expect(
    clippy::print_stdout,
    reason = "the verdict is what the command is for"
)]
pub(super) fn run(args: &VerifyArgs) -> Result<ExitCode, String> {
    let locator = ModelLocator::from_environment();
    let located = locator.locate(&args.model);
    let located = located.map_err(|error| error.to_string())?;
    for verdict in integrity::verify(&located, &args.signature)? {
        println!("{}: {verdict}", located.name());
    }
    Ok(ExitCode::SUCCESS)
}
