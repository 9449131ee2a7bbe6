//! How much may wait: from settings to the limits of server and engine.

use backstop_server::{AdmissionProfile, QueueLimits};

use crate::args::{ProfileChoice, ServeArgs};

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
    pub(crate) fn new(args: &ServeArgs) -> Result<Self, String> {
        let count = |flag: &str, asked: Option<u32>, default| match asked.unwrap_or(default) {
            count @ 1..=MAX_QUEUED => Ok(count),
            _ => Err(format!("--{flag} must lie between 1 and {MAX_QUEUED}")),
        };
        let (normal, outage) = (QueueLimits::NORMAL, QueueLimits::OUTAGE);
        if args.outage_default_max_tokens == Some(0) {
            return Err("--outage-default-max-tokens must be at least 1".into());
        }
        Ok(Self {
            profile: match args.admission_profile {
                None | Some(ProfileChoice::Normal) => AdmissionProfile::Normal,
                Some(ProfileChoice::Outage) => AdmissionProfile::Outage,
            },
            normal: QueueLimits {
                max_requests: count(
                    "max-num-queued-reqs",
                    args.max_num_queued_reqs,
                    normal.max_requests,
                )?,
                timeout: args.queue_timeout.unwrap_or(normal.timeout),
                ..normal
            },
            outage: QueueLimits {
                max_requests: count(
                    "outage-max-num-queued-reqs",
                    args.outage_max_num_queued_reqs,
                    outage.max_requests,
                )?,
                timeout: args.outage_queue_timeout.unwrap_or(outage.timeout),
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

    #[test]
    fn queues_have_bounds() {
        let args = |normal, outage| ServeArgs {
            max_num_queued_reqs: normal,
            outage_max_num_queued_reqs: outage,
            ..ServeArgs::default()
        };
        let queues = Queues::new(&args(Some(7), None)).unwrap();
        assert_eq!(queues.normal.max_requests, 7);
        assert!(queues.engine_max_waiting(256) >= 1024 + 256);
        assert!(Queues::new(&args(Some(0), None)).is_err());
        assert!(Queues::new(&args(None, Some(MAX_QUEUED + 1))).is_err());
    }
}
