//! Whether everything that has work gets on with it: decided here alone, for `/health` and for who watches the process.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstop_engine::LifecycleState;

use crate::server::Server;

/// The first steps of a model find nothing prepared: they may take so many times as long as later ones.
const WARMING_FACTOR: u32 = 10;

impl Server {
    /// What has work and has made no progress for longer than `watchdog_timeout`, in words. `excused` is added to it:
    /// time in which this process was not let run.
    pub fn stalled(&self, excused: Duration) -> Option<String> {
        let timeout = self.config().watchdog_timeout;
        let limit = match self.lifecycle().state() {
            LifecycleState::Ready | LifecycleState::Suspect(_) | LifecycleState::Draining => {
                timeout
            }
            LifecycleState::Warming => timeout.saturating_mul(WARMING_FACTOR),
            _ => return None,
        };
        let limit = limit.saturating_add(excused);
        self.stalled_engine(limit)
            .or_else(|| self.stalled_encoder(limit))
    }

    fn stalled_engine(&self, limit: Duration) -> Option<String> {
        let liveness = self.installed()?.served.engine.liveness();
        liveness.is_stalled(limit).then(|| {
            let seconds = liveness.without_progress().as_secs_f64();
            format!("the engine has work and has finished no step for {seconds:.1} s")
        })
    }

    fn stalled_encoder(&self, limit: Duration) -> Option<String> {
        let mut all = self.encoders().all();
        all.find_map(|encoder| {
            let liveness = encoder.liveness();
            (!liveness.is_alive(limit)).then(|| {
                let (seconds, task) = (liveness.since_progress.as_secs_f64(), encoder.task());
                let task = task.name();
                format!("the encoder ({task}) has work and has finished none for {seconds:.1} s")
            })
        })
    }

    /// For how long loading has read nothing of the model's files; `None` if it is not loading, or has read all.
    pub fn loading_pause(&self) -> Option<Duration> {
        match self.lifecycle().state() {
            LifecycleState::Loading {
                bytes_done,
                bytes_total,
            } if bytes_total == 0 || bytes_done < bytes_total => {
                Some(self.loading_mark().pause_at(bytes_done))
            }
            _ => None,
        }
    }
}

/// How far loading was when it was last seen to get on. As exact as the looks at it are frequent.
#[derive(Debug)]
pub(crate) struct LoadingMark(Mutex<(u64, Instant)>);

impl Default for LoadingMark {
    fn default() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }
}

impl LoadingMark {
    /// For how long it has been seen at these bytes.
    fn pause_at(&self, bytes_done: u64) -> Duration {
        // Plain data, which stays valid whatever panicked.
        let mut mark = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if mark.0 != bytes_done {
            *mark = (bytes_done, Instant::now());
        }
        mark.1.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use backstop_engine::Lifecycle;

    use super::*;
    use crate::ServerConfig;

    #[test]
    fn loading_that_reads_nothing_is_told_by_how_long() {
        let lifecycle = Lifecycle::new();
        let server = Server::new(ServerConfig::default(), lifecycle.clone());
        let loading = |bytes_done| LifecycleState::Loading {
            bytes_done,
            bytes_total: 10,
        };
        lifecycle.advance(loading(3));
        let first = server.loading_pause();
        let second = server.loading_pause();
        assert!(first.is_some() && second >= first);
        lifecycle.advance(loading(10));
        assert_eq!(server.loading_pause(), None);
        lifecycle.advance(LifecycleState::Ready);
        assert_eq!(server.loading_pause(), None);
        assert_eq!(server.stalled(Duration::ZERO), None);
    }
}
