//! What each request is known by: in its prompt, in the stand-in's answers, and wherever it should not be.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::DrillError;

const PREFIX: &str = "drill-";
const DIGITS: usize = 16;

/// Those that were given out.
#[derive(Default)]
pub(crate) struct Nonces {
    issued: Mutex<HashSet<String>>,
}

impl Nonces {
    /// A new one, that nobody can guess.
    pub(crate) fn issue(&self) -> Result<String, DrillError> {
        let random = getrandom::u64()
            .map_err(|error| DrillError::new(format!("no random numbers: {error}")))?;
        let nonce = format!("{PREFIX}{random:016x}");
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.insert(nonce.clone());
        Ok(nonce)
    }

    /// Whether a text names another request than its own.
    pub(crate) fn names_another(&self, text: &str, own: &str) -> bool {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        in_text(text).any(|nonce| nonce != own && issued.contains(nonce))
    }
}

/// Whatever looks like one, in order.
pub(crate) fn in_text(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices(PREFIX).filter_map(|(start, _)| {
        let nonce = text.get(start..start + PREFIX.len() + DIGITS)?;
        let digits = &nonce[PREFIX.len()..];
        digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then_some(nonce)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anothers_is_found_and_ones_own_and_unknown_ones_are_not() {
        let nonces = Nonces::default();
        let (own, other) = (nonces.issue().unwrap(), nonces.issue().unwrap());
        assert!(!nonces.names_another(&format!("request {own} and drill-0000000000000000"), &own));
        assert!(nonces.names_another(&format!("é{own}{other}."), &own));
        assert_eq!(in_text("drill-é, drill-12, drill-").count(), 0);
    }
}
