//! Which suites there are: definitions from files, and who builds them.

mod code;
mod conformance;
mod definition;
mod instructions;
mod json;
mod judging;
mod matching;
mod measuring;
mod pools;
mod refusals;
mod repo;
mod retrieval;
#[cfg(test)]
mod testing;
mod tools;

use std::path::Path;

use crate::QualifyError;
use crate::args::SuiteArgs;
use crate::record::Subject;
use crate::suite::Suite;

pub use definition::{Definition, Sampling};
pub use repo::RepoArgs;

/// The definitions that are part of this program.
const DEFINITIONS: &[(&str, &str)] = &[
    (
        "code-humaneval.toml",
        include_str!("../suites/code-humaneval.toml"),
    ),
    (
        "code-humaneval-plus.toml",
        include_str!("../suites/code-humaneval-plus.toml"),
    ),
    ("code-mbpp.toml", include_str!("../suites/code-mbpp.toml")),
    (
        "code-mbpp-plus.toml",
        include_str!("../suites/code-mbpp-plus.toml"),
    ),
    (
        "instructions.toml",
        include_str!("../suites/instructions.toml"),
    ),
    ("json.toml", include_str!("../suites/json.toml")),
    ("refusals.toml", include_str!("../suites/refusals.toml")),
    ("repo.toml", include_str!("../suites/repo.toml")),
    ("retrieval.toml", include_str!("../suites/retrieval.toml")),
    ("tools.toml", include_str!("../suites/tools.toml")),
];

/// Who builds suites of which kind.
const KINDS: &[(&str, Build)] = &[
    ("code", code::build),
    ("instructions", instructions::build),
    ("json", json::build),
    ("refusals", refusals::build),
    ("repo", repo::build),
    ("retrieval", retrieval::build),
    ("tools", tools::build),
];

/// Makes a suite of a definition.
type Build = fn(&Definition, &Context<'_>) -> Result<Built, QualifyError>;

/// A suite, or what it lacks on this machine.
pub enum Built {
    /// It can be asked.
    Ready(Box<dyn Suite>),
    /// It cannot, and what to do about it.
    Lacking(String),
}

/// What a suite is built with, besides its definition.
pub struct Context<'a> {
    /// The command line.
    pub args: &'a SuiteArgs,
    /// Whom it is for.
    pub subject: &'a Subject,
    /// How answers are drawn: the definition's, with what the command line says.
    pub sampling: &'a Sampling,
}

/// A suite to run, and how its answers are drawn.
pub(crate) struct Chosen {
    pub(crate) definition: Definition,
    pub(crate) sampling: Sampling,
    pub(crate) suite: Box<dyn Suite>,
}

/// All definitions, by name: the built-in ones, and those of a directory, which come in their place.
pub(crate) fn definitions(directory: Option<&Path>) -> Result<Vec<Definition>, QualifyError> {
    let mut all = Vec::new();
    for (file, text) in DEFINITIONS {
        all.push(
            Definition::parse(text).map_err(|error| QualifyError::at(Path::new(file), error))?,
        );
    }
    for other in directory
        .map(definition::read_directory)
        .transpose()?
        .unwrap_or_default()
    {
        all.retain(|definition: &Definition| definition.name != other.name);
        all.push(other);
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// Builds the suites that the command line names.
pub(crate) fn choose(args: &SuiteArgs, subject: &Subject) -> Result<Vec<Chosen>, QualifyError> {
    let all = definitions(args.suites.as_deref())?;
    let mut chosen: Vec<Chosen> = Vec::new();
    for name in &args.suite {
        let group = format!("{name}/");
        let of_name: Vec<&Definition> = all
            .iter()
            .filter(|definition| definition.name == *name || definition.name.starts_with(&group))
            .collect();
        if of_name.is_empty() {
            return Err(QualifyError::new(format!(
                "there is no suite {name:?}; --list tells which there are"
            )));
        }
        let mut lacking = Vec::new();
        let before = chosen.len();
        for definition in of_name {
            if chosen
                .iter()
                .any(|other| other.definition.name == definition.name)
            {
                continue;
            }
            let sampling = definition.sampling.with(&args.sampling)?;
            match build(definition, args, subject, &sampling)? {
                Built::Ready(suite) => chosen.push(Chosen {
                    definition: definition.clone(),
                    sampling,
                    suite,
                }),
                Built::Lacking(what) => lacking.push(format!("{}: {what}", definition.name)),
            }
        }
        if chosen.len() == before && !lacking.is_empty() {
            return Err(QualifyError::new(lacking.join("\n")));
        }
        for what in lacking {
            tracing::warn!("not run: {what}");
        }
    }
    Ok(chosen)
}

fn build(
    definition: &Definition,
    args: &SuiteArgs,
    subject: &Subject,
    sampling: &Sampling,
) -> Result<Built, QualifyError> {
    let build = KINDS.iter().find(|(kind, _)| *kind == definition.kind);
    let (_, build) = build.ok_or_else(|| {
        QualifyError::new(format!(
            "{}: there is no kind of suite {:?}",
            definition.name, definition.kind
        ))
    })?;
    let context = Context {
        args,
        subject,
        sampling,
    };
    build(definition, &context)
        .map_err(|error| QualifyError::new(format!("{}: {error}", definition.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_can_be_read_and_has_a_kind() {
        let all = definitions(None).unwrap();
        assert_eq!(all.len(), DEFINITIONS.len());
        for definition in all {
            assert!(
                KINDS.iter().any(|(kind, _)| *kind == definition.kind),
                "{}",
                definition.name
            );
            assert!(!definition.description.is_empty() && !definition.licence.is_empty());
        }
    }

    #[test]
    fn a_directory_takes_the_place_of_what_is_built_in() {
        let directory =
            std::env::temp_dir().join(format!("backstop-suites-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (_, text) = DEFINITIONS[0];
        let is_title = |line: &&str| line.starts_with("title = ");
        let title = text.lines().find(is_title).unwrap();
        let other = text.replace(title, "title = \"Other\"");
        std::fs::write(directory.join("other.toml"), other).unwrap();
        let all = definitions(Some(&directory)).unwrap();
        assert_eq!(all.len(), DEFINITIONS.len());
        assert!(all.iter().any(|definition| definition.title == "Other"));
        std::fs::write(directory.join("other.toml"), "name = 3").unwrap();
        assert!(definitions(Some(&directory)).is_err());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
