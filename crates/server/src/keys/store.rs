//! The keys in use, and how they follow their file while the server runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::http::HeaderMap;

use super::{Caller, KeyFileError, KeySet, file};
use crate::look::Look;

/// A key file, and what it looked like when it was read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// `None` if there was no such file.
    look: Option<Look>,
}

impl Source {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            look: Look::at(path),
        }
    }
}

fn warn_if_open(path: &Path) {
    if let Some(complaint) = file::key_file_complaint(path) {
        tracing::warn!("the key file {}: {complaint}", path.display());
    }
}

/// The keys in use. A file that is broken or gone leaves them as they are: that nobody gets in is
/// never the better answer for a server of last resort.
#[derive(Debug)]
pub(crate) struct KeyStore {
    keys: RwLock<Arc<KeySet>>,
    /// What the file looked like when it was tried last.
    source: Mutex<Option<Source>>,
    pub(crate) reloads: AtomicU64,
    pub(crate) failed_reloads: AtomicU64,
}

impl KeyStore {
    pub(crate) fn new(keys: KeySet) -> Self {
        if let Some(source) = &keys.source {
            warn_if_open(&source.path);
        }
        Self {
            source: Mutex::new(keys.source.clone()),
            keys: RwLock::new(Arc::new(keys)),
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
        }
    }

    /// Whose key these headers carry.
    pub(crate) fn find(&self, headers: &HeaderMap) -> Option<Caller> {
        self.keys().find(headers).cloned()
    }

    /// How many there are to share with.
    pub(crate) fn tenants(&self) -> usize {
        self.keys().tenants
    }

    /// One caller for each tenant, in no particular order.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        let keys = self.keys();
        let mut callers: Vec<Caller> = keys.keys.iter().map(|(_, c)| c.clone()).collect();
        callers.sort_by_key(|caller| caller.tenant().id);
        callers.dedup_by_key(|caller| caller.tenant().id);
        callers
    }

    /// Those of [`callers`](Self::callers) whose use of the server `viewer` may see.
    pub(crate) fn visible_to(&self, viewer: &Caller) -> Vec<Caller> {
        let mut callers = self.callers();
        callers.retain(|caller| viewer.may_see(Some(caller)));
        callers
    }

    /// How many keys there are.
    pub(crate) fn count(&self) -> usize {
        self.keys().count()
    }

    /// Reads the file again if it does not look as it did when it was last tried. Blocks.
    pub(crate) fn reload_if_changed(&self) {
        let changed = {
            let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(source) = source.as_mut() else {
                return;
            };
            let look = Look::at(&source.path);
            std::mem::replace(&mut source.look, look) != look
        };
        if changed {
            // The outcome has been logged.
            let _ignored = self.reload();
        }
    }

    /// Reads the file again. `None` if the keys come from no file. Blocks.
    pub(crate) fn reload(&self) -> Option<Result<usize, KeyFileError>> {
        let path = {
            let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
            source.as_ref()?.path.clone()
        };
        let result = file::read(&path).map(|keys| self.replace(keys));
        match &result {
            Ok(count) => {
                self.reloads.fetch_add(1, Ordering::Relaxed);
                warn_if_open(&path);
                tracing::info!(keys = count, "read the key file again");
            }
            Err(error) => {
                self.failed_reloads.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "the key file was not accepted: the keys stay as they are");
            }
        }
        Some(result)
    }

    fn replace(&self, keys: Vec<(file::KeyDigest, file::KeySettings)>) -> usize {
        let mut present = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *present = Arc::new(KeySet::from_digests(keys, Some(&present)));
        present.count()
    }

    fn keys(&self) -> Arc<KeySet> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn store(text: &str) -> (KeyStore, PathBuf) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("backstop-keys-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        (KeyStore::new(KeySet::from_file(&path).unwrap()), path)
    }

    fn admits(store: &KeyStore, key: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", key.parse().unwrap());
        store.find(&headers).is_some()
    }

    #[test]
    fn keys_follow_their_file() {
        let (store, path) = store("first-key-1\n");
        store.reload_if_changed();
        assert_eq!(store.reloads.load(Ordering::Relaxed), 0);
        fs::write(&path, "second-key-2 name=b\nthird-key-3\n").unwrap();
        store.reload_if_changed();
        assert!(!admits(&store, "first-key-1") && admits(&store, "second-key-2"));
        assert_eq!(store.reloads.load(Ordering::Relaxed), 1);
        assert_eq!((store.count(), store.callers().len()), (2, 2));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_broken_or_vanished_file_leaves_the_keys_and_is_tried_once() {
        let (store, path) = store("first-key-1\n");
        fs::write(&path, "first-key-1\nbad\n").unwrap();
        store.reload_if_changed();
        store.reload_if_changed();
        assert!(admits(&store, "first-key-1"));
        assert_eq!(store.failed_reloads.load(Ordering::Relaxed), 1);
        fs::remove_file(&path).unwrap();
        store.reload_if_changed();
        store.reload_if_changed();
        assert!(admits(&store, "first-key-1"));
        assert_eq!(store.failed_reloads.load(Ordering::Relaxed), 2);
        fs::write(&path, "second-key-2\n").unwrap();
        store.reload_if_changed();
        assert!(admits(&store, "second-key-2") && !admits(&store, "first-key-1"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn keys_without_a_file_are_not_reloaded() {
        let store = KeyStore::new(KeySet::new(["first-key-1"]));
        assert!(store.reload().is_none());
        store.reload_if_changed();
        assert!(admits(&store, "first-key-1"));
    }
}
