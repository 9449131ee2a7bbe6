//! Which GGUF files of a repository are one model in one quantisation.

use std::collections::BTreeMap;

use crate::error::PullError;
use crate::listing::RemoteFile;
use crate::names::shown;

/// Files beside a model that are no model: of images, and what quantising was led by.
const NO_MODELS: &[&str] = &["mmproj", "imatrix"];
const ENDING: &str = ".gguf";

/// One model: a file, or all parts of a split one.
#[derive(Debug)]
struct Whole<'a> {
    parts: Vec<&'a RemoteFile>,
    parts_expected: usize,
}

impl Whole<'_> {
    fn bytes(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.bytes))
    }
}

pub(crate) fn is_model(file: &RemoteFile) -> bool {
    let name = base(&file.name).to_lowercase();
    name.ends_with(ENDING) && !NO_MODELS.iter().any(|part| name.contains(part))
}

/// The files of the wanted quantisation, or of the only one.
pub(crate) fn choose<'a>(
    files: &'a [RemoteFile],
    wanted: Option<&str>,
) -> Result<Vec<&'a RemoteFile>, PullError> {
    let models = models(files);
    let all = || models.iter();
    let is_named = |name: &str| wanted.is_some_and(|wanted| is_called(name, wanted));
    let is_of = |name: &str| wanted.is_none_or(|wanted| has_word(base(name), wanted));
    // A file's whole name is never ambiguous.
    let mut fitting: Vec<_> = all().filter(|(name, _)| is_named(name)).collect();
    if fitting.is_empty() {
        fitting = all().filter(|(name, _)| is_of(name)).collect();
    }
    match fitting.as_slice() {
        [(name, whole)] if whole.parts.len() == whole.parts_expected => {
            tracing::debug!("of the GGUF files: {name}");
            Ok(whole.parts.clone())
        }
        [(name, whole)] => Err(PullError::new(format!(
            "{} is split into {} parts, of which the repository has {}",
            shown(name),
            whole.parts_expected,
            whole.parts.len()
        ))),
        [] => Err(PullError::new(format!(
            "no GGUF file is of the quantisation {}; there are: {}",
            wanted.unwrap_or_default(),
            listed(all())
        ))),
        several => Err(PullError::new(format!(
            "say which with ORG/REPO:QUANTISATION or :FILE, for there are: {}",
            listed(several.iter().copied())
        ))),
    }
}

/// All models by their names without the number of the part.
fn models(files: &[RemoteFile]) -> BTreeMap<String, Whole<'_>> {
    let mut models: BTreeMap<String, Whole<'_>> = BTreeMap::new();
    for file in files.iter().filter(|file| is_model(file)) {
        let stem = stem(&file.name);
        let (name, parts_expected) = split(stem).unwrap_or((stem, 1));
        let whole = models.entry(name.to_owned()).or_insert_with(|| Whole {
            parts: Vec::new(),
            parts_expected,
        });
        whole.parts.push(file);
    }
    models
}

/// `NAME-00002-of-00005`: the name and the number of parts.
fn split(stem: &str) -> Option<(&str, usize)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let count = is_number(count).then(|| count.parse().ok()).flatten()?;
    is_number(number).then_some((name, count))
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn stem(name: &str) -> &str {
    let end = name.len().saturating_sub(ENDING.len());
    name.get(..end).unwrap_or(name)
}

/// Whether a model is the one whose file's name this is, with or without its ending.
fn is_called(name: &str, wanted: &str) -> bool {
    let wanted = match wanted.to_lowercase().ends_with(ENDING) {
        true => stem(wanted),
        false => wanted,
    };
    base(name).eq_ignore_ascii_case(wanted)
}

/// Whether a name has a quantisation as a word: `Q4_K` is none of `Q4_K_M`, nor `Q4_XS` of `IQ4_XS`.
pub(crate) fn has_word(name: &str, wanted: &str) -> bool {
    let (name, wanted) = (name.to_lowercase(), wanted.to_lowercase());
    let is_letter = |letter: char| letter.is_alphanumeric();
    let is_word = |start: usize| {
        let before = name[..start].chars().next_back();
        let behind = name[start + wanted.len()..].chars().next();
        !before.is_some_and(is_letter)
            && !behind.is_some_and(|letter| is_letter(letter) || letter == '_')
    };
    !wanted.is_empty() && name.match_indices(&wanted).any(|(start, _)| is_word(start))
}

fn listed<'a>(models: impl Iterator<Item = (&'a String, &'a Whole<'a>)>) -> String {
    let gigabytes = |whole: &Whole<'_>| whole.bytes() as f64 / 1e9;
    let models = models.take(60);
    let models: Vec<String> = models
        .map(|(name, whole)| format!("{} ({:.2} GB)", shown(base(name)), gigabytes(whole)))
        .collect();
    models.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::FileDigest;

    fn files(names: &[&str]) -> Vec<RemoteFile> {
        let file = |name: &&str| RemoteFile {
            name: (*name).to_owned(),
            bytes: 1 << 30,
            digest: FileDigest::Git(String::new()),
        };
        names.iter().map(file).collect()
    }

    fn chosen(names: &[&str], wanted: Option<&str>) -> Result<Vec<String>, String> {
        let files = files(names);
        let chosen = choose(&files, wanted).map_err(|error| error.to_string())?;
        Ok(chosen.iter().map(|file| file.name.clone()).collect())
    }

    #[test]
    fn a_quantisation_is_a_word_of_the_name() {
        let names = [
            "m-Q4_K_M.gguf",
            "m-Q4_K_S.gguf",
            "m-IQ4_XS.gguf",
            "m.BF16.gguf",
            "mmproj-m-f16.gguf",
        ];
        for (wanted, expected) in [
            ("q4_k_m", 0),
            ("Q4_K_S", 1),
            ("iq4_xs", 2),
            ("bf16", 3),
            ("m-q4_k_s.gguf", 1),
        ] {
            assert_eq!(
                chosen(&names, Some(wanted)).unwrap(),
                [names[expected]],
                "{wanted}"
            );
        }
        for wanted in ["Q4_K", "Q4_XS", "F16", "4_K_M", ""] {
            let error = chosen(&names, Some(wanted)).unwrap_err();
            assert!(error.contains("m-Q4_K_M (1.07 GB)"), "{wanted}: {error}");
            assert!(!error.contains("mmproj"), "{error}");
        }
    }

    #[test]
    fn all_parts_of_a_split_model_belong_together() {
        let names = [
            "Q8_0/m-Q8_0-00001-of-00002.gguf",
            "Q8_0/m-Q8_0-00002-of-00002.gguf",
            "m-Q4_0-00001-of-00003.gguf",
        ];
        assert_eq!(chosen(&names, Some("Q8_0")).unwrap(), names[..2]);
        let error = chosen(&names, Some("Q4_0")).unwrap_err();
        assert!(
            error.contains("3 parts, of which the repository has 1"),
            "{error}"
        );
    }

    #[test]
    fn the_only_one_needs_no_name_and_several_do() {
        assert_eq!(
            chosen(&["m.gguf", "imatrix.gguf"], None).unwrap(),
            ["m.gguf"]
        );
        let several = ["m-Q4_0.gguf", "m-Q8_0.gguf"];
        let error = chosen(&several, None).unwrap_err();
        assert!(
            error.contains("say which") && error.contains("m-Q8_0"),
            "{error}"
        );
        let similar = ["m-Q4_0.gguf", "m-draft-Q4_0.gguf"];
        assert!(chosen(&similar, Some("Q4_0")).is_err());
        assert_eq!(chosen(&similar, Some("m-Q4_0")).unwrap(), ["m-Q4_0.gguf"]);
    }
}
