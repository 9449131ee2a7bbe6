//! The keys that clients present: read from a file, kept as digests, compared in constant time.

mod bucket;
mod file;
mod store;
mod tenant;
mod ticket;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use subtle::{ConditionallySelectable, ConstantTimeEq};

pub(crate) use self::bucket::TokenBucket;
use self::file::{KEY_CHARS_MAX, KeyDigest, digest};
pub use self::file::{KeyFileError, KeySettings, key_file_complaint, key_line};
pub(crate) use self::store::KeyStore;
use self::store::Source;
pub(crate) use self::tenant::Tenant;
#[cfg(test)]
pub(crate) use self::ticket::LIMIT_HEADER_NAMES;
pub(crate) use self::ticket::{Caller, Ticket};

/// Digests of the accepted keys, and whose they are.
#[derive(Clone)]
pub struct KeySet {
    keys: Vec<(KeyDigest, Caller)>,
    tenants: usize,
    /// The file they were read from.
    source: Option<Source>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeySet({} keys)", self.keys.len())
    }
}

/// What makes two keys the same tenant's: their name, or else that they are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TenantKey {
    Name(String),
    Digest(KeyDigest),
}

impl TenantKey {
    fn of(digest: KeyDigest, settings: &KeySettings) -> Self {
        match &settings.name {
            Some(name) => Self::Name(name.clone()),
            None => Self::Digest(digest),
        }
    }
}

impl KeySet {
    /// Keys given one by one, without limits.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let keys = keys.into_iter();
        Self::with_settings(keys.map(|key| (key, KeySettings::default())))
    }

    /// Keys given one by one, with what they may do.
    pub fn with_settings<'a>(keys: impl IntoIterator<Item = (&'a str, KeySettings)>) -> Self {
        let keys = keys.into_iter();
        Self::from_digests(keys.map(|(key, settings)| (digest(key), settings)), None)
    }

    /// Reads a file with one key a line.
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        // Before the file is read, so that a change in between is seen as one later.
        let source = Source::new(path);
        let keys = file::read(path)?;
        Ok(Self {
            source: Some(source),
            ..Self::from_digests(keys, None)
        })
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// The names of those keys that have one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|(_, caller)| caller.name())
    }

    /// Tenants that are in `before` as well keep what they have used.
    fn from_digests(
        keys: impl IntoIterator<Item = (KeyDigest, KeySettings)>,
        before: Option<&Self>,
    ) -> Self {
        let before = before.into_iter().flat_map(|set| &set.keys);
        let mut known: BTreeMap<TenantKey, Arc<Tenant>> = before
            .map(|(digest, caller)| {
                let key = TenantKey::of(*digest, caller.settings());
                (key, Arc::clone(caller.tenant()))
            })
            .collect();
        let keys: Vec<(KeyDigest, Caller)> = keys
            .into_iter()
            .map(|(digest, settings)| {
                let key = TenantKey::of(digest, &settings);
                let tenant = known.entry(key).or_insert_with(Tenant::new);
                (digest, Caller::new(Arc::clone(tenant), settings))
            })
            .collect();
        let mut ids: Vec<u64> = keys.iter().map(|(_, caller)| caller.tenant().id).collect();
        ids.sort_unstable();
        ids.dedup();
        Self {
            keys,
            tenants: ids.len(),
            source: None,
        }
    }

    /// Whose key a request's headers carry, as `Authorization: Bearer` or as `x-api-key`.
    fn find(&self, headers: &HeaderMap) -> Option<&Caller> {
        self.find_key(presented(headers)?)
    }

    /// Compares with every key, so that the time taken tells nothing about which one came close.
    fn find_key(&self, key: &str) -> Option<&Caller> {
        let presented = digest(key);
        // One more than the place, so that 0 is none.
        let place = self
            .keys
            .iter()
            .zip(1u32..)
            .fold(0, |found, ((known, _), place)| {
                u32::conditional_select(&found, &place, known.as_slice().ct_eq(&presented))
            });
        let (_, caller) = self.keys.get((place as usize).checked_sub(1)?)?;
        Some(caller)
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    bearer(headers)
        .or_else(|| {
            headers
                .get("x-api-key")
                .and_then(|value| value.to_str().ok())
        })
        .map(str::trim)
        .filter(|key| !key.is_empty() && key.len() <= KEY_CHARS_MAX)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    fn parse(text: &str) -> KeySet {
        KeySet::from_digests(file::parse(text, Path::new("keys")).unwrap(), None)
    }

    #[test]
    fn keys_are_found_in_either_header() {
        let keys = parse("# operators\n\nfirst-key-1\n second-key-2 \n");
        let admits = |headers| keys.find(&headers).is_some();
        assert!(admits(headers("authorization", "Bearer first-key-1")));
        assert!(admits(headers("authorization", "bearer second-key-2")));
        assert!(admits(headers("x-api-key", "second-key-2")));
        assert!(!admits(headers("x-api-key", "second-key-")));
        assert!(!admits(headers("authorization", "Basic first-key-1")));
        assert!(!admits(HeaderMap::new()));
        assert!(KeySet::from_file(Path::new("/nowhere/keys")).is_err());
    }

    #[test]
    fn a_digest_admits_its_key_and_not_itself() {
        let line = key_line("a-good-key", &KeySettings::default());
        let keys = parse(&line);
        assert!(keys.find_key("a-good-key").is_some());
        assert!(keys.find_key(&line).is_none());
    }

    #[test]
    fn each_key_is_its_own_holders() {
        let keys = parse("first-key-1 name=a\nsecond-key-2 name=b\nthird-key-3 name=a\nfourth-key");
        let tenant = |key| keys.find_key(key).unwrap().tenant().id;
        assert_eq!(tenant("first-key-1"), tenant("third-key-3"));
        assert_ne!(tenant("first-key-1"), tenant("second-key-2"));
        assert_eq!(keys.find_key("second-key-2").unwrap().name(), Some("b"));
        assert_eq!(keys.find_key("fourth-key").unwrap().name(), None);
        assert_eq!((keys.count(), keys.tenants), (4, 3));
    }

    #[test]
    fn holders_keep_what_they_used_when_the_file_changes() {
        let before = parse("first-key-1 name=a\nsecond-key-2\nthird-key-3");
        let text = "other-key-1 name=a lane=batch\nsecond-key-2\nfourth-key-4";
        let after = file::parse(text, Path::new("keys")).unwrap();
        let after = KeySet::from_digests(after, Some(&before));
        let id = |set: &KeySet, key| set.find_key(key).map(|caller| caller.tenant().id);
        assert_eq!(id(&before, "first-key-1"), id(&after, "other-key-1"));
        assert_eq!(id(&before, "second-key-2"), id(&after, "second-key-2"));
        assert_eq!(id(&after, "first-key-1"), None);
        assert_ne!(id(&before, "third-key-3"), id(&after, "fourth-key-4"));
    }

    #[test]
    fn debug_output_hides_everything_but_the_count() {
        assert_eq!(format!("{:?}", parse("first-key-1")), "KeySet(1 keys)");
    }
}
