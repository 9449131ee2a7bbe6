//! The certificates in use, which follow their files.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use super::files::{self, Read};
use super::{TlsError, TlsFiles};
use crate::key_file_complaint;
use crate::look::Look;

/// How long before its end a certificate is warned of.
const WARNED_BEFORE: Duration = Duration::from_hours(30 * 24);
/// Time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_hours(24);

/// What connections are encrypted with. Files that are broken or gone leave it as it is.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    present: RwLock<Read>,
    /// What the files looked like when they were tried last.
    looks: Mutex<Vec<Option<Look>>>,
    warned: Mutex<Option<Instant>>,
    pub(crate) reloads: AtomicU64,
    pub(crate) failed_reloads: AtomicU64,
    pub(crate) failed_handshakes: AtomicU64,
}

impl Tls {
    /// Reads these files.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, has not what it should, or if the key is another certificate's; and if the
    /// processor lacks what encryption needs.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let looks = looks(&files);
        let read = files::read(&files)?;
        warn_if_open(&files);
        Ok(Self {
            looks: Mutex::new(looks),
            present: RwLock::new(read),
            files,
            warned: Mutex::default(),
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
            failed_handshakes: AtomicU64::new(0),
        })
    }

    /// Whether every client must show a certificate.
    pub fn asks_every_client(&self) -> bool {
        let clients = self.files.clients.as_ref();
        clients.is_some_and(|clients| !clients.optional)
    }

    /// What a connection is begun with.
    pub(crate) fn config(&self) -> Arc<rustls::ServerConfig> {
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&present.config)
    }

    /// When the first of the server's certificates ends to be valid, from 1970 on.
    pub(crate) fn not_after(&self) -> Duration {
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
        present.not_after
    }

    /// Reads the files again if they do not look as they did, and warns of a certificate's end. Blocks.
    pub(crate) fn look_after(&self) {
        let looks = looks(&self.files);
        let last = self.looks.lock();
        let last = std::mem::replace(
            &mut *last.unwrap_or_else(PoisonError::into_inner),
            looks.clone(),
        );
        if last != looks {
            // The outcome has been logged.
            let _ignored = self.reload();
        }
        self.warn_of_end();
    }

    /// Reads the files again, for connections that begin from now on. Blocks.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        match files::read(&self.files) {
            Ok(read) => {
                let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
                *present = read;
                drop(present);
                self.reloads.fetch_add(1, Ordering::Relaxed);
                *self.warned.lock().unwrap_or_else(PoisonError::into_inner) = None;
                warn_if_open(&self.files);
                tracing::info!(
                    days_left = days_left(self.not_after()),
                    "read the certificates again"
                );
                Ok(())
            }
            Err(error) => {
                self.failed_reloads.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "the certificates were not accepted: those in use stay as they are");
                Err(error)
            }
        }
    }

    fn warn_of_end(&self) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = warned.is_some_and(|at| at.elapsed() < WARNING_INTERVAL);
        let end = self.not_after();
        if is_recent || end > now() + WARNED_BEFORE {
            return;
        }
        *warned = Some(Instant::now());
        let path = self.files.certificate.display();
        match days_left(end) {
            days @ 0.. => tracing::warn!("the certificate in {path} expires in {days} days"),
            _ => tracing::error!("the certificate in {path} has expired: clients will refuse it"),
        }
    }
}

fn now() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

/// Whole days until then; negative once it is over.
fn days_left(end: Duration) -> i64 {
    const DAY_S: i64 = 24 * 3600;
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    (seconds(end) - seconds(now())).div_euclid(DAY_S)
}

fn looks(files: &TlsFiles) -> Vec<Option<Look>> {
    files.all().map(|path| Look::at(path)).collect()
}

fn warn_if_open(files: &TlsFiles) {
    let path = files.key_file();
    if let Some(complaint) = key_file_complaint(path) {
        tracing::warn!("the TLS key {}: {complaint}", path.display());
    }
}
