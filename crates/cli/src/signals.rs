//! Signals: which end the service, read keys and certificates again, switch the admission profile, and show what all
//! threads do.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use backstop_server::{AdmissionProfile, Server};

use crate::notify::ServiceManager;

/// Resolves on SIGTERM or Ctrl-C. From then on another one of them ends the process at once.
#[cfg(unix)]
pub(crate) async fn end() {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for SIGTERM and Ctrl-C, which end the process at once");
            return std::future::pending().await;
        }
    };
    if let Err(error) = end_at_the_second() {
        tracing::warn!(%error, "a second SIGTERM or Ctrl-C will be ignored");
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("asked to end; asked once more, the process ends at once");
}

/// Lets the handler of the second signal itself end the process, whatever all threads are doing. To the first process of
/// a container the kernel sends no signal that has no handler, so that to let go of the first would not do.
#[cfg(unix)]
fn end_at_the_second() -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first one finds that nobody has asked.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
    }
    Ok(())
}

/// Resolves on Ctrl-C.
#[cfg(not(unix))]
pub(crate) async fn end() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::warn!(%error, "cannot listen for Ctrl-C");
        std::future::pending::<()>().await;
    }
}

/// Ends the process without a word to anybody: what is run at an ordinary end may wait for the very thread that hangs.
pub(crate) fn end_at_once(code: u8) -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(code.into());
    #[cfg(not(unix))]
    std::process::exit(code.into())
}

/// Set by each SIGQUIT from now on, which ends nothing.
pub(crate) fn asked_for_stacks() -> Arc<AtomicBool> {
    let asked = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    {
        let quit = signal_hook::consts::SIGQUIT;
        if let Err(error) = signal_hook::flag::register(quit, Arc::clone(&asked)) {
            tracing::warn!(%error, "cannot listen for SIGQUIT");
        }
    }
    asked
}

/// SIGHUP reads the key file and the certificates again, if there are any; SIGUSR1 begins an outage, SIGUSR2 ends it.
/// Must be called within a runtime. From then on none of them ends the process.
#[cfg(unix)]
pub(crate) fn obey(server: &Server, manager: &ServiceManager, follows_files: bool) {
    use tokio::signal::unix::SignalKind;
    // A service manager reloads whatever runs; a terminal that is closed ends what has nothing to read again.
    if follows_files || manager.is_there() {
        let manager = manager.clone();
        on(SignalKind::hangup(), server, move |server| {
            let (server, manager) = (server.clone(), manager.clone());
            // The outcomes are logged.
            drop(tokio::task::spawn_blocking(move || {
                let reload = || (server.reload_keys(), server.reload_certificates());
                manager.while_reloading(server.lifecycle(), reload)
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
pub(crate) fn obey(_server: &Server, _manager: &ServiceManager, _follows_files: bool) {}
