//! Where answers come from, as each of them says: a gateway has several providers, and its logs
//! should tell which of them answered, and with which weights.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use backstop_audit::ServedAs;
use backstop_protocol::ModelOrigin;

use crate::probes::VERSION;

/// Says which model answers, in every answer.
const MODEL: HeaderName = HeaderName::from_static("x-backstop-model");
/// Characters of a name that are told.
const NAME_CHARS_MAX: usize = 128;

/// What answers say of where they come from; by default only the version.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// `NAME@DIGEST`.
    model: Option<HeaderValue>,
    settings: Option<String>,
    /// What lists of models tell.
    origin: ModelOrigin,
}

impl Provenance {
    /// A model's name and the digest of its weights, and a digest of all that changes its answers;
    /// both are text of letters and digits. Of the name, what would be no good in a header becomes
    /// `_`.
    pub fn new(name: &str, weights_digest: &str, settings_digest: &str) -> Self {
        let safe = |c: char| match c.is_ascii_alphanumeric() || "-_.:+/".contains(c) {
            true => c,
            false => '_',
        };
        let name: String = name.chars().map(safe).take(NAME_CHARS_MAX).collect();
        Self {
            model: HeaderValue::from_str(&format!("{name}@{weights_digest}")).ok(),
            settings: Some(settings_digest.to_owned()),
            origin: ModelOrigin {
                weights: Some(weights_digest.to_owned()),
                ..ModelOrigin::default()
            },
        }
    }

    /// Says more of where the model comes from; the digest of its weights stays.
    pub fn with_origin(self, origin: ModelOrigin) -> Self {
        let weights = self.origin.weights;
        Self {
            origin: ModelOrigin { weights, ..origin },
            ..self
        }
    }

    /// Where the model comes from.
    pub fn origin(&self) -> &ModelOrigin {
        &self.origin
    }

    /// `NAME@DIGEST`, if it is known.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_ref()?.to_str().ok()
    }

    /// `NAME@DIGEST` of the model that answers.
    pub(crate) fn model_header(&self) -> Option<&HeaderValue> {
        self.model.as_ref()
    }

    /// Says which model answers.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        if let Some(model) = &self.model {
            headers.insert(MODEL, model.clone());
        }
    }

    /// The same as a line of a head, with its end; empty if there is nothing to say.
    pub(crate) fn head_line(&self) -> String {
        self.model()
            .map_or(String::new(), |model| format!("{MODEL}: {model}\r\n"))
    }

    /// The same for the audit log.
    pub(crate) fn served_as(&self) -> ServedAs {
        ServedAs {
            model: self.model().map(str::to_owned),
            fingerprint: self.fingerprint(),
        }
    }

    /// `system_fingerprint`: answers with the same one come from the same version, weights and
    /// settings.
    pub(crate) fn fingerprint(&self) -> String {
        match &self.settings {
            Some(digest) => format!("backstop-{VERSION}-{digest}"),
            None => format!("backstop-{VERSION}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(provenance: &Provenance) -> Option<String> {
        let mut headers = HeaderMap::new();
        provenance.stamp(&mut headers);
        let value = headers.get(MODEL)?.to_str().unwrap();
        assert_eq!(
            provenance.head_line(),
            format!("x-backstop-model: {value}\r\n")
        );
        Some(value.to_owned())
    }

    #[test]
    fn names_are_safe_in_headers() {
        let of = |name: &str| told(&Provenance::new(name, "0123", "4567")).unwrap();
        assert_eq!(of("org/north-1.5_x"), "org/north-1.5_x@0123");
        assert_eq!(of("a\r\nb: ü@c"), "a__b:____c@0123".replace("____", "___"));
        assert_eq!(of(&"x".repeat(500)).len(), NAME_CHARS_MAX + 5);
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let unknown = Provenance::default();
        assert_eq!((told(&unknown), unknown.head_line()), (None, String::new()));
        assert_eq!(unknown.fingerprint(), format!("backstop-{VERSION}"));
        let known = Provenance::new("north", "0123", "4567");
        assert!(known.fingerprint().ends_with("-4567"));
    }
}
