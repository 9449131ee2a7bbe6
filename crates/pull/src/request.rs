//! What a user asks for.

use backstop_models::is_repository;

use crate::error::PullError;

/// Ways in which the hub's address is written in front of a repository.
const PREFIXES: &[&str] = &["https://", "http://", "www.", "huggingface.co/", "hf.co/"];

/// What a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A name of the catalogue.
    Known(String),
    /// A repository.
    Repository(RepositoryRequest),
}

/// A repository, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepositoryRequest {
    pub(crate) repository: String,
    pub(crate) revision: Option<String>,
    pub(crate) quantization: Option<String>,
}

impl Request {
    pub(crate) fn parse(text: &str) -> Result<Self, PullError> {
        let bare = PREFIXES.iter().fold(text, |rest, prefix| {
            rest.strip_prefix(prefix).unwrap_or(rest)
        });
        let bare = bare.trim_end_matches('/');
        if !bare.contains('/') {
            return Ok(Self::Known(bare.to_owned()));
        }
        let end = bare.find(['@', ':']).unwrap_or(bare.len());
        let (repository, mut rest) = bare.split_at(end);
        let mut request = RepositoryRequest {
            repository: repository.to_owned(),
            revision: None,
            quantization: None,
        };
        while let Some(mark) = rest.chars().next() {
            let behind = &rest[mark.len_utf8()..];
            let end = behind.find(['@', ':']).unwrap_or(behind.len());
            let (value, next) = behind.split_at(end);
            let field = match mark {
                '@' => &mut request.revision,
                _ => &mut request.quantization,
            };
            if value.is_empty() || field.replace(value.to_owned()).is_some() {
                return Err(not_understood(text));
            }
            rest = next;
        }
        match is_repository(repository) {
            true => Ok(Self::Repository(request)),
            false => Err(not_understood(text)),
        }
    }
}

fn not_understood(text: &str) -> PullError {
    PullError::new(format!(
        "{text:?} is not ORG/REPO, ORG/REPO@REVISION, ORG/REPO:QUANTISATION or the name of a known model"
    ))
}

/// Whether this can be a branch, a tag or a commit in an address.
pub(crate) fn is_revision(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/+".contains(&byte);
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.');
    text.len() <= 200 && text.bytes().all(is_allowed) && text.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> (String, Option<String>, Option<String>) {
        match Request::parse(text).unwrap() {
            Request::Repository(request) => {
                (request.repository, request.revision, request.quantization)
            }
            Request::Known(name) => panic!("{name}"),
        }
    }

    #[test]
    fn repositories_are_understood_as_they_are_written_elsewhere() {
        let some = |text: &str| Some(text.to_owned());
        let plain = ("a/b".to_owned(), None, None);
        for text in [
            "a/b",
            "hf.co/a/b",
            "https://huggingface.co/a/b",
            "https://hf.co/a/b/",
        ] {
            assert_eq!(repository(text), plain, "{text}");
        }
        let all = ("a/b".to_owned(), some("refs/pr/1"), some("Q4_K_M"));
        assert_eq!(repository("a/b@refs/pr/1:Q4_K_M"), all);
        assert_eq!(repository("hf.co/a/b:Q4_K_M@refs/pr/1"), all);
        let known = Request::Known("north-mini-code-fp8".to_owned());
        assert_eq!(Request::parse("north-mini-code-fp8").unwrap(), known);
    }

    #[test]
    fn anything_else_is_refused() {
        let texts = [
            "a/b/c",
            "a/..",
            "/b",
            "a/b@",
            "a/b:x:y",
            "a/b?c",
            "a/b c",
            "https://example.org/a/b",
        ];
        for text in texts {
            let error = Request::parse(text).unwrap_err().to_string();
            assert!(error.contains("is not ORG/REPO"), "{text}: {error}");
        }
        for text in ["", "a//b", "../x", "a b", "x?y", "a/.lock"] {
            assert!(!is_revision(text), "{text}");
        }
    }
}
