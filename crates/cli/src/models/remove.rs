//! `backstop models remove`.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use backstop_models::Store;

use crate::args::RemoveArgs;

#[expect(clippy::print_stdout, reason = "what was done is worth a line")]
pub(super) fn run(args: &RemoveArgs) -> Result<ExitCode, String> {
    let store = Store::from_environment().ok_or(NO_STORE)?;
    let directory = store.model_directory(&args.name);
    if !args.yes && !agreed(&format!("remove {}", directory.display()))? {
        return Err("nothing was removed".to_owned());
    }
    store.remove(&args.name)?;
    println!("removed {}", directory.display());
    Ok(ExitCode::SUCCESS)
}

/// Why there is no place for models.
pub(crate) const NO_STORE: &str = "there is no place for models: set BACKSTOP_MODELS_DIR, or HOME for ~/.local/share/backstop/models";

/// Asks, where somebody can answer.
#[expect(clippy::print_stdout, reason = "a question")]
fn agreed(question: &str) -> Result<bool, String> {
    if !std::io::stdin().is_terminal() {
        return Err(format!("to {question} without being asked, give --yes"));
    }
    print!("{question}? [y/N] ");
    let mut answer = String::new();
    std::io::stdout()
        .flush()
        .map_err(|error| error.to_string())?;
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
