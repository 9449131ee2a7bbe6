//! How many connections the operating system's limit of open files leaves room for.

/// Descriptors for everything but connections: model files, the listeners, the runtime, probes, and
/// connections that are being closed.
const RESERVE: u64 = 256;

/// Raises the limit as far as this process may, and returns how many of `wanted` connections it
/// allows.
pub(crate) fn for_connections(wanted: usize) -> usize {
    let Some(limit) = raised_limit() else {
        return wanted;
    };
    let allowed = within(limit, wanted);
    if allowed < wanted {
        tracing::warn!(
            "only {limit} files may be open, so there are {allowed} connections at most, not \
             {wanted}: raise the limit of open files (ulimit -Hn, LimitNOFILE in systemd)"
        );
    }
    allowed
}

fn within(limit: u64, wanted: usize) -> usize {
    // Half of a small limit, for a server without connections is none.
    let allowed = limit.saturating_sub(RESERVE).max(limit / 2).max(1);
    usize::try_from(allowed).map_or(wanted, |allowed| allowed.min(wanted))
}

/// The limit of open files, if there is one.
#[cfg(unix)]
fn raised_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            limit.current
        }
    }
}

#[cfg(not(unix))]
fn raised_limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_below_the_limit_of_open_files() {
        assert_eq!(within(1 << 20, 4096), 4096);
        assert_eq!(within(1024, 4096), 768);
        assert_eq!(within(300, 4096), 150);
        assert_eq!(within(0, 4096), 1);
    }

    #[cfg(unix)]
    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        use rustix::process::{Resource, getrlimit};
        raised_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
