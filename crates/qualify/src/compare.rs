//! Two servers, compared task by task: how much worse the second is on the same work.

mod args;
mod blind;
mod comparison;
#[cfg(test)]
mod fixtures;
mod in_turns;
mod page;
mod pairing;
mod results;
mod sentence;
mod table;
mod unblind;

pub(crate) use args::names;
pub(crate) use table::{probability, quantile_rows};

pub use args::{CompareArgs, CompareCommand, Names, UnblindArgs};
pub use comparison::{Comparison, Difference, Discordant, Quantiles, Side, SuiteComparison};

use std::path::Path;
use std::process::ExitCode;

use self::blind::{Blind, Source};
use self::results::Results;
use crate::QualifyError;
use crate::output::{print, write_file, write_json};
use crate::run::until_told_to_end;

/// Does what the command line says.
///
/// # Errors
///
/// If the two cannot be compared, or the outcome cannot be written.
pub fn run(args: &CompareArgs) -> Result<ExitCode, QualifyError> {
    if let Some(CompareCommand::Unblind(args)) = &args.command {
        return reveal(args);
    }
    if let (Some(servers), Some(into)) = (&args.servers, &args.into) {
        let both = args.runs.of_both(servers, into);
        let asked = async {
            in_turns::run(&both).await?;
            Ok(ExitCode::SUCCESS)
        };
        until_told_to_end(asked)?;
        return compare(args, [&into.join("a"), &into.join("b")]);
    }
    let (Some(first), Some(second)) = (&args.first, &args.second) else {
        return Err(QualifyError::new(
            "name two directories of results: backstop-qualify compare A_DIR B_DIR",
        ));
    };
    compare(args, [first, second])
}

fn compare(args: &CompareArgs, directories: [&Path; 2]) -> Result<ExitCode, QualifyError> {
    let names = &args.names.0;
    let results = [
        Results::read(directories[0])?,
        Results::read(directories[1])?,
    ];
    let comparison = Comparison::of(names.clone(), &results, args.runs.sampling.seed)?;
    if let Some(into) = &args.into {
        write_json(&into.join("comparison.json"), &comparison)?;
        write_json(&into.join("measures/compare.json"), &comparison.measures())?;
        write_file(
            &into.join("comparison.html"),
            page::of(&comparison).as_bytes(),
        )?;
    }
    if let Some(path) = &args.json {
        write_json(path, &comparison)?;
    }
    if let Some(path) = &args.html {
        write_file(path, page::of(&comparison).as_bytes())?;
    }
    if let (true, Some(into)) = (args.blind, &args.into) {
        let blind = Blind::new(&Source {
            names,
            directories,
            results: &results,
            seed: args.runs.sampling.seed,
            pairs: usize::from(args.pairs),
            hide: &args.hide,
        })?;
        write_file(&into.join("blind/pairs.html"), blind.page.as_bytes())?;
        write_file(&into.join("blind-key/key.json"), &blind.key)?;
    }
    if args.json.as_deref() != Some(Path::new("-")) {
        print(&table::of(&comparison))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn reveal(args: &UnblindArgs) -> Result<ExitCode, QualifyError> {
    let preference = unblind::unblind(args)?;
    if let Some(path) = &args.json {
        write_json(path, &preference)?;
    }
    if args.json.as_deref() != Some(Path::new("-")) {
        print(&preference.text())?;
    }
    Ok(ExitCode::SUCCESS)
}
