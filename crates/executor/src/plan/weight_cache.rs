//! A cache of weights beside a plan: read at a start, or written after it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use backstop_kernels::CpuWeights;
use backstop_loader::{CacheMiss, WeightCache};

use super::{ModelSource, Progress, StartError, StartStage, format_bytes};

/// The file that a plan takes its weights from, or leaves them for.
#[derive(Debug)]
pub struct PlannedCache {
    file: WeightCache,
    /// What was arranged because the file did not have it. Whoever computes with it owns it.
    unwritten: Mutex<Weak<CpuWeights>>,
}

impl PlannedCache {
    /// A cache that no plan uses yet.
    pub fn new(file: WeightCache) -> Self {
        Self {
            file,
            unwritten: Mutex::default(),
        }
    }

    /// The weights in the file, or `None` if it does not hold exactly the model's.
    pub(super) fn read(
        &self,
        source: &ModelSource,
        progress: Progress<'_>,
    ) -> Result<Option<CpuWeights>, StartError> {
        let path = self.file.path().display();
        let loading = |done, total| progress(StartStage::Loading, done, total);
        match self
            .file
            .read(&source.checkpoint, source.model.spec(), &loading)
        {
            Ok(weights) => {
                tracing::info!("weights are read as they were kept in {path}");
                Ok(Some(weights))
            }
            Err(CacheMiss::Checkpoint(failure)) => Err(failure.into()),
            Err(CacheMiss::Absent) => Ok(None),
            Err(miss) => {
                tracing::warn!("{path} is passed over, and will be written anew: {miss}");
                Ok(None)
            }
        }
    }

    /// Remembers weights that the file should have.
    pub(super) fn keep(&self, weights: &Arc<CpuWeights>) {
        let mut unwritten = self
            .unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *unwritten = Arc::downgrade(weights);
    }

    /// Writes the file if it lacks the weights that the plan loaded. `go_on` is asked before each piece, of some
    /// megabytes, and may take its time; if it says no, nothing is written. What goes wrong is said in the log alone:
    /// without the file the next start takes longer, and that is all.
    pub fn write_what_it_lacks(&self, go_on: &mut dyn FnMut() -> bool) {
        if self.unwritten().is_none() || !go_on() {
            return;
        }
        // They may have been given up in the meantime.
        let Some(weights) = self.unwritten() else {
            return;
        };
        let path = self.file.path();
        let began = Instant::now();
        match self.file.write(&weights, go_on) {
            Ok(Some(bytes)) => {
                self.keep_nothing();
                told(path, bytes, began);
            }
            Ok(None) => tracing::info!(
                "{} is not written: the server is ending, or another process writes it",
                path.display()
            ),
            Err(error) => {
                tracing::warn!("weights are not kept in {}: {error}", path.display());
            }
        }
    }

    fn unwritten(&self) -> Option<Arc<CpuWeights>> {
        let unwritten = self.unwritten.lock();
        unwritten.unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    fn keep_nothing(&self) {
        let mut unwritten = self
            .unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *unwritten = Weak::new();
    }
}

fn told(path: &Path, bytes: u64, began: Instant) {
    tracing::info!(
        "weights are kept in {} ({}, written within {:.1} s): the next start reads them as they are",
        path.display(),
        format_bytes(bytes),
        began.elapsed().as_secs_f32()
    );
}
