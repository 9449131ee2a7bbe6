//! Signals: which end the service, read the keys again, and switch the admission profile.

use backstop_server::{AdmissionProfile, Server};

use crate::notify::ServiceManager;

/// Resolves on SIGTERM or Ctrl-C.
#[cfg(unix)]
pub(crate) async fn end() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(error) => {
            tracing::warn!(%error, "cannot listen for SIGTERM");
            interrupted().await;
        }
    }
}

/// Resolves on Ctrl-C.
#[cfg(not(unix))]
pub(crate) async fn end() {
    interrupted().await;
}

async fn interrupted() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::warn!(%error, "cannot listen for Ctrl-C");
        std::future::pending::<()>().await;
    }
}

/// SIGHUP reads the key file again, if there is one; SIGUSR1 begins an outage, SIGUSR2 ends it.
/// Must be called within a runtime. From then on none of them ends the process.
#[cfg(unix)]
pub(crate) fn obey(server: &Server, manager: &ServiceManager, has_key_file: bool) {
    use tokio::signal::unix::SignalKind;
    // A service manager reloads whatever runs; a terminal that is closed ends what has nothing to read again.
    if has_key_file || manager.is_there() {
        let manager = manager.clone();
        on(SignalKind::hangup(), server, move |server| {
            let (server, manager) = (server.clone(), manager.clone());
            // The outcome is logged.
            drop(tokio::task::spawn_blocking(move || {
                manager.while_reloading(server.lifecycle(), || server.reload_keys())
            }));
        });
    }
    on(SignalKind::user_defined1(), server, |server| {
        server.set_admission_profile(AdmissionProfile::Outage);
    });
    on(SignalKind::user_defined2(), server, |server| {
        server.set_admission_profile(AdmissionProfile::Normal);
    });
}

#[cfg(unix)]
fn on(
    kind: tokio::signal::unix::SignalKind,
    server: &Server,
    act: impl Fn(&Server) + Send + 'static,
) {
    match tokio::signal::unix::signal(kind) {
        Ok(mut signals) => {
            let server = server.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    act(&server);
                }
            });
        }
        Err(error) => tracing::warn!(%error, ?kind, "cannot listen for a signal"),
    }
}

/// There are no such signals here.
#[cfg(not(unix))]
pub(crate) fn obey(_server: &Server, _manager: &ServiceManager, _has_key_file: bool) {}
