//! How the server is: the one rule by which probes, and whatever supervises the process, say that it is well.

use std::time::Duration;

use backstop_engine::LifecycleState;

use crate::server::Server;

/// How a server is at one moment.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Where in its life it is.
    pub state: LifecycleState,
    /// It answers, the draining of the end included, and its engine or an encoder [hangs](Server::stalled): how, in words.
    pub stalled: Option<String>,
    /// It answers and makes progress, or has nothing to do. If it is not so, and does not load any more, the process is
    /// to be started again.
    pub healthy: bool,
}

impl Server {
    /// How this server is now. Waits for nobody.
    pub fn condition(&self) -> Condition {
        let state = self.lifecycle().state();
        let serving = match state {
            LifecycleState::Stopped | LifecycleState::Failed(_) => false,
            LifecycleState::Loading { .. } | LifecycleState::Warming => {
                // It wakes, or else it has not begun to serve.
                self.lifecycle().timeline().has_ended()
            }
            // Asleep or unproven, it is well: to start it again would not help.
            _ => true,
        };
        let stalled = self.stalled(Duration::ZERO).filter(|_| serving);
        let engine = self.installed().map(|model| model.served.engine.liveness());
        let is_gone = engine.is_some_and(|engine| !engine.thread_alive);
        Condition {
            healthy: serving && stalled.is_none() && !is_gone && self.has_models(),
            stalled,
            state,
        }
    }
}
