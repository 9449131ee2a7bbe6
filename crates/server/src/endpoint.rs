//! What endpoints that use the model have of their own; the rest of the way is the same for all of
//! them, and is in [`journey`](crate::journey).

use axum::response::Response;
use backstop_protocol::ApiError;
use serde::Serialize;

use crate::answer::Answer;
use crate::job::Job;
use crate::model::ServedModel;
use crate::patience::Manner;
use crate::server::Server;

/// An endpoint that generates. A value of it is what one request asks for beside its job: how the
/// answer is to be written.
pub(crate) trait Endpoint: Sized + Send + 'static {
    /// How its clients are looked after until their answers begin.
    const MANNER: Manner = Manner::OPENAI;

    /// Makes of a body what is to be done. It may take its time.
    fn prepare(server: &Server, model: &ServedModel, body: &[u8]) -> Result<Task<Self>, ApiError>;

    /// Writes the answer, in one piece or as a stream.
    fn respond(self, answer: Answer) -> impl Future<Output = Result<Response, ApiError>> + Send;
}

/// What is to be done for a request.
pub(crate) enum Task<E> {
    /// The engine does the job, and the endpoint writes the answer.
    Generate { job: Box<Job>, endpoint: E },
    /// Nothing, for this is the answer.
    Reply(Response),
}

impl<E> Task<E> {
    /// Lets the engine do a job.
    pub(crate) fn generate(job: Job, endpoint: E) -> Self {
        let job = Box::new(job);
        Self::Generate { job, endpoint }
    }

    /// The same, by an endpoint that is made of this one.
    pub(crate) fn map<T>(self, make: impl FnOnce(E) -> T) -> Task<T> {
        match self {
            Self::Generate { job, endpoint } => Task::Generate {
                job,
                endpoint: make(endpoint),
            },
            Self::Reply(reply) => Task::Reply(reply),
        }
    }
}

/// An endpoint that answers without the engine.
pub(crate) trait Inquiry: 'static {
    /// The answer.
    type Reply: Serialize + Send + 'static;

    /// Tokens are counted, and are taken from the key's limit like a prompt's. How many is known
    /// afterwards and may leave a debt, so that there must be something left of the limit
    /// beforehand.
    const COUNTS_TOKENS: bool;

    /// Finds the answer to a body. It may take its time.
    fn inquire(server: &Server, body: &[u8]) -> Result<Found<Self::Reply>, ApiError>;
}

/// The answer to an inquiry.
pub(crate) struct Found<R> {
    pub(crate) reply: R,
    /// Tokens that were counted.
    pub(crate) tokens: usize,
}
