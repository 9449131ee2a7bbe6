//! Where in a trace a request stands, as W3C's Trace Context writes it in `traceparent`.

use axum::http::HeaderMap;

/// The header's name.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Hexadecimal digits of the header's parts.
const VERSION_DIGITS: usize = 2;
const TRACE_DIGITS: usize = 32;
const SPAN_DIGITS: usize = 16;
const FLAG_DIGITS: usize = 2;
/// The only version whose form is known; later ones may go on behind it.
const FIRST_VERSION: u64 = 0;
const NO_VERSION: u64 = 0xff;
/// The flag that says that the trace is recorded.
const SAMPLED: u64 = 1;

/// The span by which a request was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    /// Whether who made the request records its trace.
    pub(crate) sampled: bool,
}

impl TraceContext {
    /// The trace's id as headers and logs have it.
    pub(crate) fn trace_id_digits(self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// What a request says. What is malformed says nothing, as the specification wants it.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?.to_str().ok()?;
        match values.next() {
            None => Self::parse(value),
            Some(_) => None,
        }
    }

    /// `VERSION-TRACE-SPAN-FLAGS`, in lower-case hexadecimal digits.
    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.trim().split('-');
        let mut number = |digits| hexadecimal(parts.next()?, digits);
        let version = number(VERSION_DIGITS)? as u64;
        let trace_id = number(TRACE_DIGITS)?;
        let span_id = number(SPAN_DIGITS)? as u64;
        let flags = number(FLAG_DIGITS)? as u64;
        let ends_as_it_should = version != FIRST_VERSION || parts.next().is_none();
        let is_valid = version != NO_VERSION && trace_id != 0 && span_id != 0;
        (ends_as_it_should && is_valid).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & SAMPLED != 0,
        })
    }
}

fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_well_formed = text.len() == digits && text.bytes().all(is_digit);
    is_well_formed.then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_s_example_is_read() {
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(value).unwrap();
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.span_id, 0x00f0_67aa_0ba9_02b7);
        assert!(context.sampled);
        let unrecorded = value.replace("-01", "-00");
        assert!(!TraceContext::parse(&unrecorded).unwrap().sampled);
        let later = value.replacen("00-", "cc-", 1) + "-what-comes-later";
        assert_eq!(TraceContext::parse(&later), Some(context));
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        for value in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(value), None, "{value}");
        }
    }
}
