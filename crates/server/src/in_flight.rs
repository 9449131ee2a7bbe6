//! Requests that use a model, from their arrival to the end of their answers.

use std::sync::Arc;

use backstop_protocol::ApiError;
use tokio::time::Instant;

use crate::keys::Ticket;
use crate::model::InstalledModel;
use crate::record::Record;
use crate::server::Server;
use crate::turns::Asker;

/// A request that was let in, whichever model it is for.
pub(crate) struct Entered {
    pub(crate) guard: RequestGuard,
    pub(crate) arrived: Instant,
}

impl Entered {
    /// Counts a request in, if it may use a model now.
    pub(crate) async fn new(
        server: &Server,
        ticket: Ticket,
        record: Record,
    ) -> Result<Self, ApiError> {
        let arrived = Instant::now();
        let patience = arrived + server.queue_timeout();
        let counted = loop {
            // Counted before the state is looked at, so that a drain that begins in between waits.
            let counted = Counted::new(server);
            if server.check_ready().is_ok() {
                break counted;
            }
            // It may have fallen asleep since this request was let in, and it does not before nobody is counted.
            drop(counted);
            server.check_ready_or_wake(patience.into_std()).await?;
        };
        Ok(Self {
            guard: RequestGuard::of(counted, ticket, record),
            arrived,
        })
    }

    /// When its time is over.
    pub(crate) fn deadline(&self) -> Instant {
        self.arrived + self.guard.server.config().request_timeout
    }
}

/// What all stages of a request for a generation hand on.
pub(crate) struct InFlight {
    pub(crate) guard: RequestGuard,
    pub(crate) model: Arc<InstalledModel>,
    pub(crate) arrived: Instant,
}

impl InFlight {
    /// The same request, if there is a model that generates.
    pub(crate) fn new(request: Entered) -> Result<Self, ApiError> {
        let Entered { guard, arrived } = request;
        Ok(Self {
            model: Arc::clone(guard.server.generating_model()?),
            guard,
            arrived,
        })
    }

    /// When its time is over.
    pub(crate) fn deadline(&self) -> Instant {
        self.arrived + self.guard.server.config().request_timeout
    }
}

/// A request that is counted in until this is dropped.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    pub(crate) server: Server,
    pub(crate) ticket: Ticket,
    /// What will be told of it.
    pub(crate) record: Record,
    _counted: Counted,
}

impl RequestGuard {
    #[cfg(test)]
    pub(crate) fn new(server: &Server, ticket: Ticket, record: Record) -> Self {
        Self::of(Counted::new(server), ticket, record)
    }

    fn of(counted: Counted, ticket: Ticket, record: Record) -> Self {
        Self {
            server: counted.0.clone(),
            ticket,
            record,
            _counted: counted,
        }
    }

    /// Who asks for a share of what the server has.
    pub(crate) fn asker(&self) -> Asker {
        Asker {
            tenant: self.ticket.caller().tenant().id,
            shared: self.server.tenants() > 1,
        }
    }
}

/// Counts one request in and, when dropped, out.
#[derive(Debug)]
struct Counted(Server);

impl Counted {
    fn new(server: &Server) -> Self {
        server.count_in_flight(|count| *count += 1);
        Self(server.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count_in_flight(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use backstop_engine::Lifecycle;

    use super::*;
    use crate::ServerConfig;

    #[tokio::test]
    async fn idle_waits_for_every_guard() {
        let server = Server::new(ServerConfig::default(), Lifecycle::new());
        let ticket = || server.anybody().begin().unwrap();
        let counted = Counted::new(&server);
        assert_eq!(server.requests_in_flight(), 1);
        let idle = tokio::spawn({
            let server = server.clone();
            async move { server.idle().await }
        });
        drop(counted);
        idle.await.unwrap();
        let entered = Entered::new(&server, ticket(), Record::default()).await;
        assert!(entered.is_err());
        assert_eq!(server.requests_in_flight(), 0);
    }
}
