//! Who gave an answer, and whether it is one.

use serde::Serialize;

use crate::nonces::Nonces;
use crate::stand_in::{TEXT_BEGINS, whole_text};
use crate::transcript::Transcript;
use crate::verdict::PASSED_OFF;

/// A text that is no longer than this can be the same twice by accident.
const TWICE_CHARACTERS_MIN: usize = 40;

/// Who gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// The primary, all of it.
    Primary,
    /// Backstop, all of it.
    Fallback,
    /// The primary began, and something else went on.
    Continued,
    /// The primary refused to say anything.
    Refusal,
    /// Somebody who left no mark.
    Unknown,
    /// Nobody.
    None,
}

/// What is wrong with an answer that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Flaw {
    /// The same text, or an end, twice.
    Twice,
    /// It has a part of another request's answer.
    Foreign,
    /// It begins anew behind a part of the primary's answer.
    Restarted,
}

/// What the fallback says of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Identity {
    /// `NAME@DIGEST` of the model.
    pub(crate) model: Option<String>,
    pub(crate) fingerprint: Option<String>,
}

/// What is to be thought of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) source: Source,
    /// Why the request is lost.
    pub(crate) lost: Option<String>,
    pub(crate) flaws: Vec<Flaw>,
}

/// Judges an answer to the request of this nonce. With `identity` an answer is Backstop's if it has the same model or
/// fingerprint; without, if it has Backstop's header.
pub(crate) fn judge(
    transcript: &Transcript,
    nonce: &str,
    nonces: &Nonces,
    identity: Option<&Identity>,
) -> Judgement {
    let source = source(transcript, nonce, identity);
    let mut flaws = Vec::new();
    let is_twice = transcript.ends > 1 || transcript.goes_on_after_end;
    if is_twice || begins_twice(&transcript.text) || is_doubled(&transcript.text) {
        flaws.push(Flaw::Twice);
    }
    if [&transcript.text, &transcript.reasoning]
        .iter()
        .any(|text| nonces.names_another(text, nonce))
    {
        flaws.push(Flaw::Foreign);
    }
    let is_cut = transcript.failure.is_none() && is_part_of_primarys(&transcript.text, nonce);
    let lost = match &transcript.failure {
        Some(failure) => Some(failure.clone()),
        None if is_cut => Some(PASSED_OFF.to_owned()),
        None => None,
    };
    let source = if lost.is_some() { Source::None } else { source };
    Judgement {
        source,
        lost,
        flaws,
    }
}

fn source(transcript: &Transcript, nonce: &str, identity: Option<&Identity>) -> Source {
    let text = &transcript.text;
    if *text == whole_text(nonce) {
        Source::Primary
    } else if text.starts_with(TEXT_BEGINS) {
        Source::Continued
    } else if is_backstops(transcript, identity) {
        Source::Fallback
    } else if text.is_empty() && transcript.finish_reason.as_deref() == Some("content_filter") {
        Source::Refusal
    } else {
        Source::Unknown
    }
}

fn is_backstops(transcript: &Transcript, identity: Option<&Identity>) -> bool {
    let model = transcript.backstop_model.as_ref();
    let Some(identity) = identity else {
        return model.is_some();
    };
    let has_fingerprint = |fingerprint| transcript.fingerprints.contains(fingerprint);
    (model.is_some() && model == identity.model.as_ref())
        || identity.fingerprint.as_ref().is_some_and(has_fingerprint)
}

/// What follows the part of the primary's answer with which a text begins.
pub(crate) fn behind_primarys<'a>(text: &'a str, nonce: &str) -> &'a str {
    let expected = whole_text(nonce);
    let same = text
        .chars()
        .zip(expected.chars())
        .take_while(|(one, other)| one == other);
    let bytes: usize = same.map(|(character, _)| character.len_utf8()).sum();
    &text[bytes..]
}

fn is_part_of_primarys(text: &str, nonce: &str) -> bool {
    let whole = whole_text(nonce);
    !text.is_empty() && text.len() < whole.len() && whole.starts_with(text)
}

fn begins_twice(text: &str) -> bool {
    text.matches(TEXT_BEGINS).count() > 1
}

/// Whether a text is another one twice, and not merely a pattern that goes on and on.
fn is_doubled(text: &str) -> bool {
    let characters: Vec<char> = text.chars().collect();
    let half = characters.len() / 2;
    let is_same = characters.len().is_multiple_of(2) && characters[..half] == characters[half..];
    let repeats =
        |period: usize| (period..half).all(|at| characters[at] == characters[at - period]);
    half >= TWICE_CHARACTERS_MIN && is_same && !(1..=half / 2).any(repeats)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "drill-0123456789abcdef";

    fn said(text: &str) -> Transcript {
        Transcript {
            text: text.to_owned(),
            finish_reason: Some("stop".into()),
            ends: 1,
            ..Transcript::default()
        }
    }

    fn judged(transcript: &Transcript) -> Judgement {
        judge(transcript, NONCE, &Nonces::default(), None)
    }

    #[test]
    fn an_answer_is_known_by_its_text_its_header_and_its_fingerprint() {
        assert_eq!(judged(&said(&whole_text(NONCE))).source, Source::Primary);
        assert_eq!(judged(&said("hello")).source, Source::Unknown);
        let mut backstops = said("hello");
        backstops.backstop_model = Some("demo@1".into());
        assert_eq!(judged(&backstops).source, Source::Fallback);
        let other = Identity {
            model: Some("demo@2".into()),
            fingerprint: Some("fp".into()),
        };
        let nonces = Nonces::default();
        assert_eq!(
            judge(&backstops, NONCE, &nonces, Some(&other)).source,
            Source::Unknown
        );
        backstops.fingerprints.insert("fp".into());
        assert_eq!(
            judge(&backstops, NONCE, &nonces, Some(&other)).source,
            Source::Fallback
        );
    }

    #[test]
    fn a_part_that_passes_for_the_whole_is_lost() {
        let whole = whole_text(NONCE);
        let judgement = judged(&said(&whole[..50]));
        assert!(judgement.lost.unwrap().contains("a part"));
        assert_eq!(judgement.source, Source::None);
        let continued = format!("{}and so on", &whole[..50]);
        let judgement = judged(&said(&continued));
        assert_eq!(
            (judgement.source, judgement.lost),
            (Source::Continued, None)
        );
        assert_eq!(behind_primarys(&continued, NONCE), "and so on");
    }

    #[test]
    fn doubled_and_foreign_texts_are_flaws() {
        let nonces = Nonces::default();
        let other = nonces.issue().unwrap();
        let foreign = judge(&said(&whole_text(&other)), NONCE, &nonces, None);
        assert_eq!(foreign.flaws, [Flaw::Foreign]);
        let whole = whole_text(NONCE);
        assert_eq!(
            judged(&said(&format!("{whole}{whole}"))).flaws,
            [Flaw::Twice]
        );
        let sentence = "A sentence that nobody says twice by accident. ";
        assert_eq!(judged(&said(&sentence.repeat(2))).flaws, [Flaw::Twice]);
        assert!(judged(&said(&"ab".repeat(100))).flaws.is_empty());
        let mut ended = said("hello");
        ended.ends = 2;
        assert_eq!(judged(&ended).flaws, [Flaw::Twice]);
    }
}
