//! The journey of a request that uses a model, from its arrival to its answer:
//!
//! ```text
//! Arrived    counted in, and the models are ready                    503
//! Read       its body has come, within limits and shares of memory   400, 408, 413, 415, 429
//! Prepared   token ids that fit the model, or an answer already      400, 404, 429, 503
//! Admitted   it has places, and its first sequence left the queue    429, 503
//! Answer     written while it is generated
//! ```
//!
//! What is to be encoded goes from `Prepared` to the queue of its [encoder](crate::encoders) instead.
//!
//! Each stage is a value that owns what the next one consumes. A client that goes away drops the
//! stage that its request has come to, and what that holds is given back: its count, its share of
//! memory, its turn, its places, its sequences.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use backstop_protocol::ApiError;
use tokio::time::timeout_at;

use crate::answer::Answer;
use crate::body::{self, BudgetedBody};
use crate::choice::Choice;
use crate::constraint::Enforced;
use crate::encoders::{Encodable, Encoded, Encoding};
use crate::endpoint::{Endpoint, Found, Inquiry, Task};
use crate::identity::{Identity, LateFailure};
use crate::in_flight::{Entered, InFlight, RequestGuard};
use crate::job::Job;
use crate::keys::Ticket;
use crate::patience::{self, Form, Manner};
use crate::record::Record;
use crate::reply::{self, ErrorReply};
use crate::server::Server;
use crate::{admission, constraint, work};

/// The handler of an endpoint that generates.
pub(crate) async fn generate<E: Endpoint>(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    let read = Arrived::new(&server, request).await?.read().await?;
    // From here on the client hears of its request, however long the rest takes.
    let form = patience::form(&read.body, E::MANNER.streams_by_default).await?;
    let guard = &read.entered.guard;
    guard.record.read(form == Form::Streamed, read.body.text());
    let interval = form.interval(server.config());
    let identity = read.identity.clone();
    let late_failure = LateFailure::of(identity.clone(), guard);
    let server = server.clone();
    let rest = identity.caught(unless_failed(server, answer::<E>(read)));
    Ok(patience::keep(form, interval, E::MANNER, late_failure, rest).await)
}

/// The handler of an endpoint that encodes.
pub(crate) async fn encode<E: Encoding>(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    let read = Arrived::new(&server, request).await?.read().await?;
    let guard = &read.entered.guard;
    guard.record.read(false, read.body.text());
    let interval = Form::Whole.interval(server.config());
    let identity = read.identity.clone();
    let late_failure = LateFailure::of(identity.clone(), guard);
    let server = server.clone();
    let rest = identity.caught(unless_failed(server, encoded::<E>(read)));
    Ok(patience::keep(Form::Whole, interval, Manner::OPENAI, late_failure, rest).await)
}

/// What comes of a request, or an error if the server fails before: a thread that is stuck answers nobody.
async fn unless_failed<T>(
    server: Server,
    work: impl Future<Output = Result<T, ErrorReply>>,
) -> Result<T, ErrorReply> {
    tokio::select! {
        // What is there is not lost.
        biased;
        outcome = work => outcome,
        () = server.lifecycle().failed() => Err(ErrorReply(reply::engine_gone())),
    }
}

/// What is left to do of a request whose texts are to be encoded.
async fn encoded<E: Encoding>(read: Read) -> Result<Response, ErrorReply> {
    let Read { entered, body, .. } = read;
    let prepared = work::on_body(&entered.guard, body, E::prepare).await?;
    let Encodable {
        encoder,
        inputs,
        priority,
        endpoint,
    } = prepared;
    let Encoded { rows, place } = encoder.encode(&entered, inputs, priority).await?;
    let written = tokio::task::spawn_blocking(move || endpoint.write(rows)).await;
    let text = written.map_err(|_| ApiError::internal())??;
    Ok(reply::long_json(text, (entered, place)))
}

/// What is left to do of a request whose body has come.
async fn answer<E: Endpoint>(read: Read) -> Result<Response, ErrorReply> {
    let Prepared { in_flight, task } = read.prepare::<E>().await?;
    match task {
        Task::Reply(reply) => Ok(reply),
        Task::Generate { job, endpoint } => {
            let admitted = Admitted::new(in_flight, *job).await?;
            Ok(endpoint.respond(Answer::new(admitted)).await?)
        }
    }
}

/// The handler of an endpoint that answers without the engine.
pub(crate) async fn inquire<I: Inquiry>(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ErrorReply> {
    let mut arrived = Arrived::new(&server, request).await?;
    if I::COUNTS_TOKENS {
        arrived = arrived.with_tokens_left().await?;
    }
    let read = arrived.read().await?;
    let reply = read.inquire::<I>().await?;
    Ok(reply::json(StatusCode::OK, &reply))
}

/// A request that was let in, whose body is still to come.
struct Arrived {
    entered: Entered,
    identity: Identity,
    request: Request,
}

impl Arrived {
    /// Lets a request in, if the models are ready.
    async fn new(server: &Server, mut request: Request) -> Result<Self, ApiError> {
        let known = request.extensions_mut();
        let identity = known.remove::<Identity>().ok_or_else(ApiError::internal)?;
        let ticket = known.remove::<Ticket>().ok_or_else(ApiError::internal)?;
        let record = known.remove::<Record>().unwrap_or_default();
        Ok(Self {
            entered: Entered::new(server, ticket, record).await?,
            identity,
            request,
        })
    }

    /// Refuses a request whose key has no tokens left to be counted.
    async fn with_tokens_left(self) -> Result<Self, ApiError> {
        let RequestGuard { server, ticket, .. } = &self.entered.guard;
        match ticket.check_tokens() {
            Ok(()) => Ok(self),
            Err(error) => {
                body::discard(self.request, server.config().max_body_bytes).await;
                Err(error)
            }
        }
    }

    /// Reads the body.
    async fn read(self) -> Result<Read, ApiError> {
        let Self {
            entered,
            identity,
            request,
        } = self;
        let guard = &entered.guard;
        let body = Arc::new(body::read(&guard.server, guard.asker(), request).await?);
        Ok(Read {
            entered,
            identity,
            body,
        })
    }
}

/// A request whose body has come.
struct Read {
    entered: Entered,
    identity: Identity,
    /// Holds its share of the memory for bodies.
    body: Arc<BudgetedBody>,
}

impl Read {
    /// Lets an endpoint say what is to be done, when it is the request's turn.
    async fn prepare<E: Endpoint>(self) -> Result<Prepared<E>, ApiError> {
        let in_flight = InFlight::new(self.entered)?;
        let model = Arc::clone(&in_flight.model);
        let prepare = move |server: &Server, body: &[u8]| E::prepare(server, &model.served, body);
        let task = work::on_body(&in_flight.guard, self.body, prepare).await?;
        Ok(Prepared { in_flight, task })
    }

    /// Lets an endpoint find its answer, when it is the request's turn.
    async fn inquire<I: Inquiry>(self) -> Result<I::Reply, ApiError> {
        let Self { entered, body, .. } = self;
        let Found { reply, tokens } = work::on_body(&entered.guard, body, I::inquire).await?;
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        entered.guard.ticket.charge_counted(tokens);
        Ok(reply)
    }
}

/// A request of which it is known what is to be done.
struct Prepared<E> {
    in_flight: InFlight,
    task: Task<E>,
}

/// A request whose first sequence has left the queue.
pub(crate) struct Admitted {
    pub(crate) in_flight: InFlight,
    pub(crate) job: Job,
    pub(crate) choices: Vec<Choice>,
    /// What the request's schemas say and no grammar enforces.
    pub(crate) not_enforced: Option<String>,
}

impl Admitted {
    /// Hands a job to the engine and waits until its first sequence leaves the queue: until then
    /// a failure is an HTTP status, and gateways can go elsewhere, unless their patience made the
    /// head go out before.
    async fn new(in_flight: InFlight, job: Job) -> Result<Self, ApiError> {
        let Enforced {
            constraint,
            not_enforced,
        } = constraint::of_job(&in_flight, &job).await?;
        let RequestGuard {
            server,
            ticket,
            record,
            ..
        } = &in_flight.guard;
        let prompt_tokens = job.prompt_tokens();
        record.asked(prompt_tokens);
        let charge = ticket.charge_prompt(prompt_tokens)?;
        let places = admission::enter(&in_flight, &job)?;
        let mut choices = admission::submit(&in_flight, &job, constraint, places).await?;
        charge.keep();
        if let Some(first) = choices.first_mut() {
            let admitted = timeout_at(in_flight.deadline(), first.admitted()).await;
            admitted.map_err(|_| server.deadline_exceeded())??;
            record.admitted();
        }
        Ok(Self {
            in_flight,
            job,
            choices,
            not_enforced,
        })
    }
}
