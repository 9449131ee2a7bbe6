//! What a suite's file says.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::QualifyError;
use crate::args::SamplingArgs;

const FILE_BYTES_MAX: u64 = 4 << 20;
const FILES_MAX: usize = 1000;

/// A suite, as its file defines it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What `--suite` asks for.
    pub name: String,
    /// Who builds it.
    pub kind: String,
    /// For people.
    pub title: String,
    /// One sentence.
    pub description: String,
    /// Where its tasks are from; empty for our own.
    #[serde(default)]
    pub source: String,
    /// Of its tasks.
    pub licence: String,
    /// How answers are drawn, unless the command line says otherwise.
    #[serde(default)]
    pub sampling: Sampling,
    /// What is peculiar to its kind.
    #[serde(default)]
    tasks: toml::Table,
}

/// How answers are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// 0 takes the most likely token.
    pub temperature: f64,
    /// Not sent if there is none.
    pub top_p: Option<f64>,
    /// Not sent if there is none.
    pub max_tokens: Option<u32>,
    /// Answers to each task.
    pub samples: u32,
    /// The k of each pass@k.
    pub pass_at: Vec<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: None,
            max_tokens: None,
            samples: 1,
            pass_at: vec![1],
        }
    }
}

impl Definition {
    /// Reads a definition.
    ///
    /// # Errors
    ///
    /// If it is none. Errors are for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let definition: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let is_plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_+".contains(&byte))
        };
        // It becomes the name of files.
        if !definition.name.split('/').all(is_plain) {
            return Err(format!(
                "{:?} is no name of a suite: letters, digits, -, _ and + are, in parts between slashes",
                definition.name
            ));
        }
        Ok(definition)
    }

    /// What is peculiar to its kind.
    ///
    /// # Errors
    ///
    /// If that is not what the kind knows.
    pub fn tasks<T: DeserializeOwned>(&self) -> Result<T, QualifyError> {
        let tasks = self.tasks.clone().try_into();
        tasks.map_err(|error: toml::de::Error| {
            QualifyError::new(format!("[tasks]: {}", error.message()))
        })
    }
}

impl Sampling {
    /// What the command line says comes first.
    pub(crate) fn with(&self, args: &SamplingArgs) -> Result<Self, QualifyError> {
        let own = !args.pass_at.is_empty();
        let samples = args.samples.unwrap_or(self.samples);
        let sampling = Self {
            temperature: args.temperature.unwrap_or(self.temperature),
            top_p: args.top_p.or(self.top_p),
            max_tokens: args.max_tokens.or(self.max_tokens),
            samples,
            pass_at: if own {
                args.pass_at.clone()
            } else {
                self.pass_at.clone()
            },
        };
        if let Some(k) = sampling.pass_at.iter().find(|k| **k > samples) {
            return Err(QualifyError::new(format!(
                "pass@{k} needs at least {k} answers to each task: --samples {k}"
            )));
        }
        if samples > 1 && sampling.temperature == 0.0 {
            return Err(QualifyError::new(
                "several answers at temperature 0 are one answer: --temperature must be more",
            ));
        }
        Ok(sampling)
    }

    /// What makes a measure comparable with others.
    pub fn settings(&self) -> BTreeMap<String, Value> {
        let mut settings = BTreeMap::from([("temperature".to_owned(), json!(self.temperature))]);
        if let Some(top_p) = self.top_p {
            settings.insert("top_p".into(), json!(top_p));
        }
        if let Some(max_tokens) = self.max_tokens {
            settings.insert("max_tokens".into(), json!(max_tokens));
        }
        settings
    }
}

/// The definitions of a directory.
pub(super) fn read_directory(directory: &Path) -> Result<Vec<Definition>, QualifyError> {
    let at = |error: std::io::Error| QualifyError::at(directory, error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(QualifyError::at(
                directory,
                format!("it has more than {FILES_MAX} suites"),
            ));
        }
    }
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = backstop_input::read_text_file(path, FILE_BYTES_MAX)
            .map_err(|error| QualifyError::at(path, error))?;
        Definition::parse(&text).map_err(|error| QualifyError::at(path, error))
    };
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn args(line: &str) -> SamplingArgs {
        let line = ["backstop-qualify", "--list"]
            .into_iter()
            .chain(line.split_whitespace());
        crate::CommandLine::try_parse_from(line)
            .unwrap()
            .suites
            .sampling
    }

    #[test]
    fn the_command_line_has_the_last_word() {
        let own = Sampling {
            max_tokens: Some(7),
            ..Sampling::default()
        };
        assert_eq!(own.with(&args("")).unwrap(), own);
        let with = own
            .with(&args("--samples 10 --pass-at 1,10 --temperature 0.8"))
            .unwrap();
        assert_eq!(
            (with.samples, with.pass_at, with.max_tokens),
            (10, vec![1, 10], Some(7))
        );
    }

    #[test]
    fn what_cannot_be_estimated_is_refused() {
        let own = Sampling::default();
        let error = own.with(&args("--pass-at 10")).unwrap_err().to_string();
        assert!(error.contains("--samples 10"), "{error}");
        let error = own.with(&args("--samples 10")).unwrap_err().to_string();
        assert!(error.contains("--temperature"), "{error}");
    }

    #[test]
    fn names_stay_within_the_directory_of_results() {
        let text = |name: &str| {
            format!(
                "name = {name:?}\nkind = \"k\"\ntitle = \"t\"\ndescription = \"d\"\nlicence = \"l\""
            )
        };
        assert!(Definition::parse(&text("code/a-b_c+1")).is_ok());
        for name in ["", "../x", "a//b", "/a", "a b", "a/."] {
            assert!(Definition::parse(&text(name)).is_err(), "{name}");
        }
    }
}
