//! A server that stays ready for a day that may never come: it proves itself again and again, sleeps, wakes and loads anew.

mod canary_file;
mod proof;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use backstop_engine::{EngineHandle, LifecycleState};
use backstop_server::Server;
use backstop_types::SleepLevel;
use tokio::sync::Mutex;

pub(crate) use self::canary_file::{CanaryFile, CanaryKey};
pub(crate) use self::proof::{FirstProof, NotProven, Prover, canary_of, generate};

/// A model that is not trusted is asked again as often.
const SUSPECT_INTERVAL: Duration = Duration::from_secs(60);

/// The model that generates, as far as its life is concerned.
pub(crate) struct Standby {
    server: Server,
    engine: EngineHandle,
    prover: Prover,
    /// Held by whatever changes the state: one change at a time, and no proof during one.
    turn: Mutex<()>,
    /// Seconds that waking took, or is expected to take, from each level.
    wake_s: [AtomicU32; 2],
}

impl Standby {
    /// Of a model that is proven. `loading` is how long it took to load.
    pub(crate) fn new(
        server: Server,
        engine: EngineHandle,
        prover: Prover,
        loading: Duration,
    ) -> Self {
        let seconds = whole_seconds(loading);
        Self {
            server,
            engine,
            prover,
            turn: Mutex::new(()),
            wake_s: [AtomicU32::new(seconds), AtomicU32::new(seconds)],
        }
    }

    /// Puts the server to sleep once its requests have ended; says how long that took. After an error it is as it was.
    pub(crate) async fn sleep(
        &self,
        level: SleepLevel,
        limit: Duration,
    ) -> Result<Duration, String> {
        let _turn = self.turn.lock().await;
        let (started, lifecycle) = (Instant::now(), self.server.lifecycle());
        let before = lifecycle.state();
        match before {
            LifecycleState::Ready | LifecycleState::Suspect(_) => {}
            state => return Err(format!("the server is {state}")),
        }
        lifecycle.advance(self.sleeping(level));
        let slept = match tokio::time::timeout(limit, self.server.idle()).await {
            Ok(()) => self.engine.sleep(level).await,
            Err(_) => Err(format!(
                "{} requests still run after {limit:?}: give them longer with --timeout",
                self.server.requests_in_flight()
            )),
        };
        if let Err(reason) = slept {
            lifecycle.advance(before);
            return Err(reason);
        }
        tracing::info!(level = level.number(), "asleep");
        Ok(started.elapsed())
    }

    fn sleeping(&self, level: SleepLevel) -> LifecycleState {
        let wake_s = self.wake_time(level).load(Ordering::Relaxed);
        LifecycleState::Sleeping { level, wake_s }
    }

    fn wake_time(&self, level: SleepLevel) -> &AtomicU32 {
        &self.wake_s[usize::from(level.number()) - 1]
    }

    /// Wakes the server and lets it prove itself; says how long that took. An error leaves it asleep, or suspect.
    pub(crate) async fn wake(&self) -> Result<Duration, String> {
        let _turn = self.turn.lock().await;
        self.wake_in_turn().await
    }

    async fn wake_in_turn(&self) -> Result<Duration, String> {
        let (started, lifecycle) = (Instant::now(), self.server.lifecycle());
        let level = match lifecycle.state() {
            LifecycleState::Sleeping { level, .. } => level,
            LifecycleState::Ready => return Ok(Duration::ZERO),
            state => return Err(format!("the server is {state}")),
        };
        let loading = lifecycle.clone();
        let woken = self.engine.wake(move |bytes_done, bytes_total| {
            loading.advance(LifecycleState::Loading {
                bytes_done,
                bytes_total,
            });
        });
        if let Err(reason) = woken.await {
            lifecycle.advance(self.sleeping(level));
            tracing::error!(%reason, "cannot wake");
            return Err(reason);
        }
        lifecycle.advance(LifecycleState::Warming);
        self.prove_in_turn("waking").await?;
        let took = started.elapsed();
        self.wake_time(level)
            .store(whole_seconds(took), Ordering::Relaxed);
        tracing::info!(
            level = level.number(),
            seconds = took.as_secs_f32(),
            "awake"
        );
        Ok(took)
    }

    /// Reads the weights from disk again, and lets the model prove itself; says how long that took.
    pub(crate) async fn reload_weights(&self, limit: Duration) -> Result<Duration, String> {
        let started = Instant::now();
        if !matches!(
            self.server.lifecycle().state(),
            LifecycleState::Sleeping { .. }
        ) {
            self.sleep(SleepLevel::DropWeights, limit).await?;
        }
        self.wake().await?;
        Ok(started.elapsed())
    }

    /// Lets the model prove itself, unless it sleeps or is about to end.
    async fn prove(&self) {
        let _turn = self.turn.lock().await;
        let state = self.server.lifecycle().state();
        if matches!(state, LifecycleState::Ready | LifecycleState::Suspect(_)) {
            // What comes of it is in the life-cycle, the metrics and the log.
            let _ignored = self.prove_in_turn("schedule").await;
        }
    }

    /// Asks the model, and lets the life-cycle say what comes of it. A proof that could not be made changes nothing for a
    /// model that was trusted.
    async fn prove_in_turn(&self, occasion: &'static str) -> Result<(), String> {
        let lifecycle = self.server.lifecycle();
        let proof = self.prover.again(&self.server, &self.engine).await;
        match proof {
            Ok(()) => lifecycle.advance(LifecycleState::Ready),
            Err(NotProven::NotRun(reason)) if lifecycle.is_ready() => {
                tracing::warn!(%reason, occasion, "the canary could not be run");
            }
            Err(not_proven) => {
                let reason = not_proven.to_string();
                tracing::error!(%reason, occasion, "the model is suspect, and answers nothing");
                lifecycle.advance(LifecycleState::Suspect(reason.clone()));
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Lets the model prove itself whenever it is time. Does not return.
    pub(crate) async fn keep_proving(&self, interval: Duration) {
        loop {
            self.until_next_proof(interval).await;
            self.prove().await;
        }
    }

    /// Waits as long as the operator wants; 0 is for ever. A model that is suspect, or becomes so meanwhile, is asked again
    /// sooner: what made it fail may have passed.
    async fn until_next_proof(&self, interval: Duration) {
        let lifecycle = self.server.lifecycle();
        let regular = async {
            match interval.is_zero() {
                true => std::future::pending().await,
                false => tokio::time::sleep(interval).await,
            }
        };
        let suspect = lifecycle.wait_for(|state| matches!(state, LifecycleState::Suspect(_)));
        tokio::select! {
            () = regular => {}
            _ = suspect => {
                let pause = match interval.is_zero() {
                    true => SUSPECT_INTERVAL,
                    false => interval.min(SUSPECT_INTERVAL),
                };
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Wakes the server whenever a request wants it. Does not return.
    pub(crate) async fn wake_on_requests(&self) {
        loop {
            self.server.wake_wanted().await;
            // The reason is in the log, and requests are told that the server sleeps.
            let _ignored = self.wake().await;
        }
    }
}

fn whole_seconds(duration: Duration) -> u32 {
    // The conversion saturates.
    duration.as_secs_f64().ceil() as u32
}
