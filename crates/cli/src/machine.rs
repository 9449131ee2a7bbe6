//! What the operating system says about the machine.

/// Memory that can be taken without swapping, in bytes; `None` where the system does not say.
pub(crate) fn available_memory_bytes() -> Option<u64> {
    memory_field("MemAvailable:")
}

/// Memory of the machine, in bytes.
pub(crate) fn total_memory_bytes() -> Option<u64> {
    memory_field("MemTotal:")
}

fn memory_field(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
