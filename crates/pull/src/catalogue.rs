//! Which repository is meant, and what it is called here.

use backstop_models::{Manifest, ModelLocator, is_model_name, is_repository};

use crate::args::CommandLine;
use crate::error::PullError;
use crate::gguf::has_word;
use crate::request::{RepositoryRequest, Request, is_revision};

const DEFAULT_REVISION: &str = "main";

/// Which repository is meant, and what it is called here.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) repository: String,
    pub(crate) revision: String,
    pub(crate) quantization: Option<String>,
    /// What is known of the model already.
    pub(crate) manifest: Option<Manifest>,
}

impl Target {
    pub(crate) fn find(
        command_line: &CommandLine,
        locator: &ModelLocator,
    ) -> Result<Self, PullError> {
        let mut target = match Request::parse(&command_line.model)? {
            Request::Known(name) => Self::known(&name, locator)?,
            Request::Repository(request) => Self::of_repository(request, locator),
        };
        if let Some(revision) = &command_line.revision {
            target.revision.clone_from(revision);
        }
        if let Some(name) = &command_line.name {
            target.name.clone_from(name);
        }
        target.check()?;
        Ok(target)
    }

    fn known(name: &str, locator: &ModelLocator) -> Result<Self, PullError> {
        let manifests = locator.manifests();
        let Some(path) = manifests.get(name) else {
            let names: Vec<&str> = manifests.keys().map(String::as_str).collect();
            return Err(PullError::new(format!(
                "no model is known as {name:?}: give its repository as ORG/REPO, or one of: {}",
                names.join(", ")
            )));
        };
        let manifest = Manifest::read(path).map_err(|error| PullError::new(error.to_string()))?;
        let repository = manifest.repository.clone().ok_or_else(|| {
            PullError::at(
                path,
                "it names no repository, so that there is nothing to fetch it from",
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            repository,
            revision: manifest
                .revision
                .clone()
                .unwrap_or_else(|| DEFAULT_REVISION.to_owned()),
            quantization: manifest.quantization.clone(),
            manifest: Some(manifest),
        })
    }

    fn of_repository(request: RepositoryRequest, locator: &ModelLocator) -> Self {
        let quantization = request.quantization.as_deref();
        let manifest = locator.manifest_of(&request.repository, quantization);
        let name = match &manifest {
            Some(manifest) => manifest.name.clone(),
            None => usual_name(&request),
        };
        Self {
            name,
            repository: request.repository,
            revision: request
                .revision
                .unwrap_or_else(|| DEFAULT_REVISION.to_owned()),
            quantization: request.quantization,
            manifest,
        }
    }

    fn check(&self) -> Result<(), PullError> {
        if !is_repository(&self.repository) {
            return Err(PullError::new(format!(
                "{:?} is not ORG/REPO",
                self.repository
            )));
        }
        if !is_revision(&self.revision) {
            return Err(PullError::new(format!(
                "{:?} is no branch, tag or commit",
                self.revision
            )));
        }
        if !is_model_name(&self.name) {
            return Err(PullError::new(format!(
                "a model cannot be called {:?}: choose a --name of letters, digits, '.', '_' and '-'",
                self.name
            )));
        }
        Ok(())
    }
}

/// The repository's last part, with the quantisation behind it.
fn usual_name(request: &RepositoryRequest) -> String {
    let last = request
        .repository
        .rsplit('/')
        .next()
        .unwrap_or(&request.repository);
    match &request.quantization {
        Some(quantization) if !has_word(last, quantization) => {
            let quantization = quantization.rsplit('/').next().unwrap_or(quantization);
            format!("{last}-{}", quantization.trim_end_matches(".gguf"))
        }
        _ => last.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn target(line: &[&str]) -> Result<Target, String> {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let locator = ModelLocator::new(vec![directory]);
        let command_line = CommandLine::parse_from(["backstop-pull"].iter().chain(line));
        Target::find(&command_line, &locator).map_err(|error| error.to_string())
    }

    #[test]
    fn known_models_are_found_by_name_and_by_repository() {
        let by_name = target(&["north-mini-code-fp8"]).unwrap();
        assert_eq!(by_name.repository, "CohereLabs/North-Mini-Code-1.0-fp8");
        assert_eq!(by_name.revision.len(), 40);
        let by_repository = target(&["cohereLabs/North-Mini-Code-1.0-fp8"]).unwrap();
        assert_eq!(by_repository.name, "north-mini-code-fp8");
        assert_eq!(by_repository.revision, "main");
        let error = target(&["north-mini"]).unwrap_err();
        assert!(error.contains("north-mini-code-fp8"), "{error}");
        assert!(
            target(&["demo"])
                .unwrap_err()
                .contains("names no repository")
        );
    }

    #[test]
    fn others_have_the_name_of_their_repository_unless_told() {
        let name = |line: &[&str]| target(line).unwrap().name;
        assert_eq!(name(&["a/Tiny"]), "Tiny");
        assert_eq!(name(&["a/Tiny-GGUF:Q4_K_M"]), "Tiny-GGUF-Q4_K_M");
        assert_eq!(name(&["a/Tiny-q4_k_m:Q4_K_M"]), "Tiny-q4_k_m");
        assert_eq!(name(&["a/Tiny", "--name", "mine"]), "mine");
        assert_eq!(
            target(&["a/Tiny@v1", "--revision", "v2"]).unwrap().revision,
            "v2"
        );
        for line in [
            ["a/Tiny", "--name", "../x"],
            ["a/Tiny", "--revision", "a b"],
        ] {
            assert!(target(&line).is_err());
        }
    }
}
