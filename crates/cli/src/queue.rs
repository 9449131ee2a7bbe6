//! How much may wait: from settings to the limits of server and engine.

use backstop_server::{AdmissionProfile, QueueLimits};

use crate::args::{ProfileChoice, QueueArgs};

/// Longest queue that can be asked for.
const MAX_QUEUED: u32 = 65_536;
/// Room in the engine's own queue beyond what the server lets in: for probes, and for the moments
/// in which the two count differently.
const ENGINE_MARGIN: u32 = 64;

/// Limits of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queues {
    pub(crate) profile: AdmissionProfile,
    pub(crate) normal: QueueLimits,
    pub(crate) outage: QueueLimits,
}

impl Queues {
    pub(crate) fn new(args: &QueueArgs) -> Result<Self, String> {
        let count = |flag: &str, asked: u32| match asked {
            1..=MAX_QUEUED => Ok(asked),
            _ => Err(format!("--{flag} must lie between 1 and {MAX_QUEUED}")),
        };
        if args.outage_default_max_tokens == Some(0) {
            return Err("--outage-default-max-tokens must be at least 1".into());
        }
        Ok(Self {
            profile: match args.admission_profile {
                ProfileChoice::Normal => AdmissionProfile::Normal,
                ProfileChoice::Outage => AdmissionProfile::Outage,
            },
            normal: QueueLimits {
                max_requests: count("max-num-queued-reqs", args.max_num_queued_reqs)?,
                timeout: args.queue_timeout,
                default_max_tokens: None,
            },
            outage: QueueLimits {
                max_requests: count(
                    "outage-max-num-queued-reqs",
                    args.outage_max_num_queued_reqs,
                )?,
                timeout: args.outage_queue_timeout,
                default_max_tokens: args.outage_default_max_tokens,
            },
        })
    }

    /// What the engine's queue must hold: the longer of the two queues, and a burst that finds all
    /// of `max_num_seqs` places free, which passes through the queue as well.
    pub(crate) fn engine_max_waiting(&self, max_num_seqs: u32) -> u32 {
        let longer = self.normal.max_requests.max(self.outage.max_requests);
        longer + max_num_seqs + ENGINE_MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::args::serve_args;

    fn queues(line: &[&str]) -> Result<Queues, String> {
        Queues::new(&serve_args(line).queue)
    }

    #[test]
    fn queues_have_bounds() {
        let seven = queues(&["--max-num-queued-reqs=7"]).unwrap();
        assert_eq!(seven.normal.max_requests, 7);
        assert!(seven.engine_max_waiting(256) >= 1024 + 256);
        assert!(queues(&["--max-num-queued-reqs=0"]).is_err());
        let more = format!("--outage-max-num-queued-reqs={}", MAX_QUEUED + 1);
        assert!(queues(&[&more]).is_err());
    }

    #[test]
    fn the_servers_own_limits_hold_unless_told_otherwise() {
        let usual = queues(&[]).unwrap();
        assert_eq!(usual.normal, QueueLimits::NORMAL);
        assert_eq!(usual.outage, QueueLimits::OUTAGE);
    }
}
