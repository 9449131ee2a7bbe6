//! How the server is: the one rule by which probes, and whatever supervises the process, say that it is well.

use backstop_engine::LifecycleState;

use crate::server::Server;

/// How a server is at one moment.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Where in its life it is.
    pub state: LifecycleState,
    /// It answers, the draining of the end included, and its engine or an encoder has work and has made no progress for
    /// [`ServerConfig::liveness_stall`](crate::ServerConfig::liveness_stall).
    pub stalled: bool,
    /// It answers and makes progress, or has nothing to do. If it is not so, and does not load any more, the process is
    /// to be started again.
    pub healthy: bool,
}

impl Server {
    /// How this server is now. Waits for nobody.
    pub fn condition(&self) -> Condition {
        let state = self.lifecycle().state();
        let serving = matches!(state, LifecycleState::Ready | LifecycleState::Draining);
        let stalled = serving && self.is_stalled();
        Condition {
            healthy: serving && !stalled && self.has_models(),
            stalled,
            state,
        }
    }

    /// Whether the engine or an encoder has work and makes no progress.
    pub(crate) fn is_stalled(&self) -> bool {
        let stall = self.config().liveness_stall;
        let engine = self.installed().map(|model| model.served.engine.liveness());
        let mut encoders = self.encoders().all();
        engine.is_some_and(|live| !live.is_alive(stall))
            || encoders.any(|encoder| !encoder.liveness().is_alive(stall))
    }
}
