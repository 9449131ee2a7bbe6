//! The ways in which a provider fails: one entry each.

use crate::DrillError;

/// One way in which a provider fails.
#[derive(Debug)]
pub struct Fault {
    /// What it is called on the command line and in reports.
    pub name: &'static str,
    /// What the stand-in does to a request.
    pub what: &'static str,
    /// What a gateway is to make of it.
    pub expected: Expected,
    /// What advice it needs if a gateway does not.
    pub(crate) class: Class,
    pub(crate) act: Act,
}

/// What a gateway is to make of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The fallback answers every request.
    Fallback,
    /// Every request is answered, by whichever is sooner.
    Answer,
    /// The fallback finishes what the primary began, or answers alone.
    Continued,
    /// The fallback answers, or the client is told that the primary refuses.
    FallbackOrRefusal,
}

impl Expected {
    /// In words, for lists and reports.
    pub fn text(self) -> &'static str {
        match self {
            Self::Fallback => "the fallback answers",
            Self::Answer => "every request is answered, by whichever is sooner",
            Self::Continued => "the fallback finishes the answer that was begun",
            Self::FallbackOrRefusal => "the fallback answers, or the client is told of the refusal",
        }
    }
}

/// Failures that the same settings of a gateway are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It is said at once that there is no answer.
    Refusing,
    /// Nothing is said at all.
    Hanging,
    /// A stream stops in its text.
    Breaking,
    /// A stream goes silent in its text.
    Stalling,
    /// The prompt is too long.
    Context,
    /// The content is refused.
    Policy,
}

/// What the stand-in does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Nothing listens.
    Refuse,
    /// The connection is reset as soon as something is asked.
    Reset,
    /// Its certificate is nobody's.
    Distrust,
    /// An answer with this status and error.
    Status(u16, Error),
    /// As `Status`, with `Retry-After` in seconds.
    Busy(u16, Error, u16),
    HangBeforeHead,
    HangAfterHead,
    /// The connection breaks before the first text.
    BreakBeforeText,
    /// The connection breaks in the text.
    Break,
    /// The stream ends as if it were complete, in its text, without `finish_reason` and `[DONE]`.
    EndEarly,
    /// As `EndEarly`, with `[DONE]`.
    DoneEarly,
    /// Silence in the text.
    Stall,
    /// An answer without text, whose `finish_reason` is `content_filter`.
    Filter,
    /// Something that is no JSON.
    Garbage,
    /// Each answer takes twice as long as the one before, until there is none.
    SlowDeath,
}

/// The body of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// As OpenAI's API has it.
    Json {
        message: &'static str,
        kind: &'static str,
        code: Option<&'static str>,
    },
    /// As a load balancer has it.
    Page(&'static str),
}

impl Fault {
    /// The failure of this name.
    ///
    /// # Errors
    ///
    /// If there is none; the message says how to list them.
    pub fn named(name: &str) -> Result<&'static Self, DrillError> {
        FAULTS
            .iter()
            .find(|fault| fault.name == name)
            .ok_or_else(|| {
                DrillError::new(format!("no failure is called {name:?}: --list names them"))
            })
    }

    /// Whether it can happen to streams alone.
    pub(crate) fn streams_only(&self) -> bool {
        use Act::{BreakBeforeText, DoneEarly, EndEarly, Stall};
        matches!(self.act, BreakBeforeText | DoneEarly | EndEarly | Stall)
    }
}

const fn error(message: &'static str, kind: &'static str, code: Option<&'static str>) -> Error {
    Error::Json {
        message,
        kind,
        code,
    }
}

const fn refusing(name: &'static str, what: &'static str, act: Act) -> Fault {
    Fault {
        name,
        what,
        expected: Expected::Fallback,
        class: Class::Refusing,
        act,
    }
}

const fn hanging(name: &'static str, what: &'static str, act: Act) -> Fault {
    Fault {
        name,
        what,
        expected: Expected::Fallback,
        class: Class::Hanging,
        act,
    }
}

const fn breaking(name: &'static str, what: &'static str, act: Act) -> Fault {
    Fault {
        name,
        what,
        expected: Expected::Continued,
        class: Class::Breaking,
        act,
    }
}

const BUSY: Error = error(
    "Rate limit reached for requests",
    "requests",
    Some("rate_limit_exceeded"),
);

/// All that the stand-in can do, in the order in which a drill does it.
pub static FAULTS: [Fault; 25] = [
    refusing("connection-refused", "nothing listens", Act::Refuse),
    refusing(
        "connection-reset",
        "each connection is reset when something is asked",
        Act::Reset,
    ),
    refusing(
        "tls-failure",
        "its certificate is from no authority that is trusted",
        Act::Distrust,
    ),
    refusing(
        "status-401",
        "401, the key is not accepted",
        Act::Status(
            401,
            error(
                "Incorrect API key provided",
                "invalid_request_error",
                Some("invalid_api_key"),
            ),
        ),
    ),
    refusing(
        "status-403",
        "403, the country is not served",
        Act::Status(
            403,
            error(
                "Country, region, or territory not supported",
                "request_forbidden",
                Some("unsupported_country_region_territory"),
            ),
        ),
    ),
    refusing(
        "status-404",
        "404, the model is gone",
        Act::Status(
            404,
            error(
                "The model does not exist or you do not have access to it.",
                "invalid_request_error",
                Some("model_not_found"),
            ),
        ),
    ),
    refusing(
        "status-429",
        "429 without Retry-After",
        Act::Status(429, BUSY),
    ),
    refusing(
        "status-429-retry-after",
        "429 with Retry-After: 30",
        Act::Busy(429, BUSY, 30),
    ),
    refusing(
        "status-451",
        "451, unavailable for legal reasons",
        Act::Status(
            451,
            error(
                "This service is unavailable for legal reasons",
                "request_forbidden",
                Some("unavailable_for_legal_reasons"),
            ),
        ),
    ),
    refusing(
        "status-500",
        "500 with an error as OpenAI's",
        Act::Status(
            500,
            error(
                "The server had an error while processing your request",
                "server_error",
                None,
            ),
        ),
    ),
    refusing(
        "status-502",
        "502 with a load balancer's page",
        Act::Status(502, Error::Page("502 Bad Gateway")),
    ),
    refusing(
        "status-503",
        "503 with an error as OpenAI's",
        Act::Status(
            503,
            error("The engine is currently unavailable", "server_error", None),
        ),
    ),
    refusing(
        "status-529",
        "529, overloaded",
        Act::Status(529, error("Overloaded", "overloaded_error", None)),
    ),
    refusing(
        "garbage-json",
        "200 with something that is no JSON",
        Act::Garbage,
    ),
    Fault {
        name: "context-overflow",
        what: "400, the prompt is too long (context_length_exceeded)",
        expected: Expected::Fallback,
        class: Class::Context,
        act: Act::Status(
            400,
            error(
                "This model's maximum context length is 8 tokens. However, your messages resulted in 9 tokens. \
                 Please reduce the length of the messages.",
                "invalid_request_error",
                Some("context_length_exceeded"),
            ),
        ),
    },
    Fault {
        name: "content-policy",
        what: "400, the content is refused (content_policy_violation)",
        expected: Expected::Fallback,
        class: Class::Policy,
        act: Act::Status(
            400,
            error(
                "Your request was rejected as a result of the safety system.",
                "invalid_request_error",
                Some("content_policy_violation"),
            ),
        ),
    },
    Fault {
        name: "content-filter",
        what: "200 without text, whose finish_reason is content_filter",
        expected: Expected::FallbackOrRefusal,
        class: Class::Policy,
        act: Act::Filter,
    },
    hanging(
        "hang-before-headers",
        "takes requests and says nothing",
        Act::HangBeforeHead,
    ),
    hanging(
        "hang-after-headers",
        "sends 200 and headers, and then nothing",
        Act::HangAfterHead,
    ),
    Fault {
        name: "slow-death",
        what: "each answer takes twice as long as the one before, from 0.25 s on, until there is none",
        expected: Expected::Answer,
        class: Class::Hanging,
        act: Act::SlowDeath,
    },
    refusing(
        "stream-cut-before-text",
        "the connection breaks before the first text",
        Act::BreakBeforeText,
    ),
    breaking(
        "cut-in-text",
        "the connection breaks in the middle of an answer",
        Act::Break,
    ),
    breaking(
        "stream-ends-early",
        "the stream ends in its text, without finish_reason and [DONE]",
        Act::EndEarly,
    ),
    breaking(
        "stream-done-early",
        "the stream ends in its text with [DONE], without finish_reason",
        Act::DoneEarly,
    ),
    Fault {
        name: "stream-stall",
        what: "the stream falls silent in its text",
        expected: Expected::Continued,
        class: Class::Stalling,
        act: Act::Stall,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_found_by_its_name() {
        for fault in &FAULTS {
            assert!(std::ptr::eq(Fault::named(fault.name).unwrap(), fault));
        }
        let error = Fault::named("earthquake").unwrap_err().to_string();
        assert!(error.contains("--list"), "{error}");
    }
}
