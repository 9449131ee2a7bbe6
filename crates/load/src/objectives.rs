//! What a good answer is.

use serde::{Deserialize, Serialize};

use crate::LoadError;
use crate::record::Latencies;

/// The longest latencies of a good answer, in seconds. Without any, every answer is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Objectives {
    /// Time to first token.
    pub ttft: Option<f64>,
    /// Time per output token.
    pub tpot: Option<f64>,
    /// End-to-end latency.
    pub e2el: Option<f64>,
}

impl Objectives {
    /// From `ttft:500`, `tpot:50` and `e2el:5000`, in milliseconds, as vLLM's benchmark has them.
    ///
    /// # Errors
    ///
    /// If a name is unknown or named twice, or a time is none.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Self, LoadError> {
        let mut objectives = Self::default();
        for pair in pairs {
            let refuse = || {
                LoadError::new(format!(
                    "{pair:?} is no objective: expected ttft:MS, tpot:MS or e2el:MS, each once"
                ))
            };
            let (name, value) = pair.split_once(':').ok_or_else(refuse)?;
            let milliseconds: f64 = value.parse().map_err(|_| refuse())?;
            if !(milliseconds.is_finite() && milliseconds >= 0.0) {
                return Err(refuse());
            }
            let place = match name {
                "ttft" => &mut objectives.ttft,
                "tpot" => &mut objectives.tpot,
                "e2el" => &mut objectives.e2el,
                _ => return Err(refuse()),
            };
            if place.replace(milliseconds / 1e3).is_some() {
                return Err(refuse());
            }
        }
        Ok(objectives)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an answer is good. An answer of one token takes no time for each after it.
    pub fn are_met(&self, latencies: &Latencies) -> bool {
        let within = |limit: Option<f64>, value: f64| limit.is_none_or(|limit| value <= limit);
        within(self.ttft, latencies.ttft)
            && within(self.tpot, latencies.tpot.unwrap_or(0.0))
            && within(self.e2el, latencies.e2el)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_as_vllm_writes_them() {
        let objectives = Objectives::parse(["ttft:500", "tpot:50"]).unwrap();
        assert_eq!((objectives.ttft, objectives.tpot), (Some(0.5), Some(0.05)));
        for bad in ["ttft", "ttft:x", "itl:5", "ttft:-1", "ttft:nan"] {
            assert!(Objectives::parse([bad]).is_err(), "{bad}");
        }
        assert!(Objectives::parse(["ttft:1", "ttft:2"]).is_err());
    }

    #[test]
    fn the_limit_itself_is_good_and_one_token_has_no_pace() {
        let objectives = Objectives::parse(["ttft:500", "tpot:50"]).unwrap();
        let latencies = |ttft, tpot| Latencies {
            ttft,
            tpot,
            e2el: 9.0,
        };
        assert!(objectives.are_met(&latencies(0.5, Some(0.05))));
        assert!(objectives.are_met(&latencies(0.1, None)));
        assert!(!objectives.are_met(&latencies(0.501, None)));
        assert!(!objectives.are_met(&latencies(0.1, Some(0.051))));
    }
}
