//! A stand-in for the primary provider, which fails on command.

mod connection;
mod door;
mod script;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig};

use self::door::Door;
pub(crate) use self::wire::{TEXT_BEGINS, whole_text};
use crate::DrillError;
use crate::faults::{Act, Fault};

/// More connections than this wait.
const CONNECTIONS_MAX: usize = 1024;
/// More requests than this are not told apart.
const REQUESTS_MAX: usize = 100_000;
/// How long it waits when the operating system has no connection to give.
const SHORT_OF_FILES: Duration = Duration::from_millis(50);

/// A provider of OpenAI's chat completions that fails on command. It stops when it is dropped.
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    in_force: watch::Receiver<u64>,
    _running: JoinSet<()>,
}

/// What connections have in common.
struct Shared {
    state: watch::Sender<State>,
    counts: Mutex<Counts>,
    tls: TlsAcceptor,
}

/// What is to be done to requests, since a number of changes.
#[derive(Clone, Copy)]
struct State {
    fault: Option<&'static Fault>,
    changes: u64,
}

impl State {
    fn does(&self, act: Act) -> bool {
        self.fault.is_some_and(|fault| fault.act == act)
    }
}

/// Requests since the last change.
#[derive(Default)]
struct Counts {
    all: u32,
    by_nonce: HashMap<String, u32>,
}

impl StandIn {
    /// Starts a provider that is well.
    ///
    /// # Errors
    ///
    /// If nothing can listen at the address.
    pub fn start(address: SocketAddr) -> Result<Self, DrillError> {
        let door = Door::open(address).map_err(|error| {
            DrillError::new(format!(
                "cannot listen at {address}: {error}; --stand-in names another"
            ))
        })?;
        let address = door.address();
        let state = State {
            fault: None,
            changes: 0,
        };
        let shared = Arc::new(Shared {
            state: watch::Sender::new(state),
            counts: Mutex::default(),
            tls: nobodys_certificate()?,
        });
        let (announce, in_force) = watch::channel(0);
        let mut running = JoinSet::new();
        running.spawn(run(door, shared.clone(), announce));
        Ok(Self {
            address,
            shared,
            in_force,
            _running: running,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it fails like this, or is well. Answers that have begun are finished as they would have been; no
    /// connection that is open serves another request.
    pub async fn set(&self, fault: Option<&'static Fault>) {
        let mut changes = 0;
        self.shared.state.send_modify(|state| {
            state.fault = fault;
            state.changes += 1;
            changes = state.changes;
        });
        *self.shared.counts() = Counts::default();
        // An error says that it has stopped, and then nothing is in force at all.
        let _ = self
            .in_force
            .clone()
            .wait_for(|known| *known >= changes)
            .await;
    }

    /// How often a request was asked for since the last change.
    pub(crate) fn attempts(&self, nonce: &str) -> u32 {
        self.shared
            .counts()
            .by_nonce
            .get(nonce)
            .copied()
            .unwrap_or(0)
    }
}

impl Shared {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, and says how many there were before it.
    fn count(&self, nonce: &str) -> u32 {
        let mut counts = self.counts();
        counts.all += 1;
        if counts.by_nonce.len() < REQUESTS_MAX {
            *counts.by_nonce.entry(nonce.to_owned()).or_default() += 1;
        }
        counts.all - 1
    }
}

async fn run(mut door: Door, shared: Arc<Shared>, announce: watch::Sender<u64>) {
    let mut changes = shared.state.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let state = *changes.borrow_and_update();
        if let Err(error) = door.set_open(!state.does(Act::Refuse)) {
            tracing::error!("the stand-in cannot listen any more: {error}");
            return;
        }
        announce.send_replace(state.changes);
        loop {
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                accepted = door.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok(stream) => { connections.spawn(connection::serve(stream, shared.clone())); }
                    Err(_) => tokio::time::sleep(SHORT_OF_FILES).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// TLS with a certificate that was made just now, which nobody has a reason to trust.
fn nobodys_certificate() -> Result<TlsAcceptor, DrillError> {
    let failed = |error: &dyn std::fmt::Display| {
        DrillError::new(format!("cannot make a certificate: {error}"))
    };
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let own = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())
        .map_err(|error| failed(&error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
