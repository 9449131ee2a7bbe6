//! What the kernel counts for each process, or each user.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::wire::Settings;

/// Open files of each process.
const FILES: u64 = 512;
/// Of each thread, as on most machines.
const STACK_BYTES: u64 = 8 << 20;
/// The processes of the stages, where they are of the program's own user: `outer`, and `init` with its two threads.
const STAGES: u64 = 3;

/// Bounds this process, and what it starts.
pub(crate) fn apply(settings: &Settings) -> rustix::io::Result<()> {
    let limits = &settings.limits;
    let own = if settings.is_another { 0 } else { STAGES };
    let seconds = limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0);
    let mut all = vec![
        (Resource::Core, 0),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Memlock, 64 << 10),
        (Resource::Msgqueue, 0),
        (Resource::Nice, 0),
        (Resource::Nofile, FILES),
        (Resource::Nproc, u64::from(limits.processes) + own),
        (Resource::Rtprio, 0),
        (Resource::Sigpending, 1024),
        (Resource::Stack, STACK_BYTES),
    ];
    if settings.memory_is_watched {
        all.push((Resource::As, limits.memory_bytes));
    }
    for (resource, most) in all {
        bound(resource, most, most)?;
    }
    // First a signal that says why, and a second later one that cannot be ignored.
    bound(Resource::Cpu, seconds, seconds + 1)
}

/// This machine's own limits may be lower.
fn bound(resource: Resource, soft: u64, hard: u64) -> rustix::io::Result<()> {
    let maximum = getrlimit(resource)
        .maximum
        .map_or(hard, |own| own.min(hard));
    let limit = Rlimit {
        current: Some(soft.min(maximum)),
        maximum: Some(maximum),
    };
    setrlimit(resource, limit)
}
