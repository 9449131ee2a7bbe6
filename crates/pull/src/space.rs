//! Whether there is room.

use std::path::Path;

use crate::error::PullError;

/// What else is written meanwhile: journals, manifests, and what others do.
const MARGIN_BYTES: u64 = 64 << 20;

/// Checks that a file system has room for so many bytes more. `directory` need not be there yet.
pub(crate) fn check(directory: &Path, bytes: u64) -> Result<(), PullError> {
    let absolute =
        std::path::absolute(directory).map_err(|error| PullError::at(directory, error))?;
    let there = absolute.ancestors().find(|path| path.exists());
    let there = there.ok_or_else(|| PullError::at(directory, "there is no such place"))?;
    let status = rustix::fs::statvfs(there).map_err(|error| PullError::at(there, error))?;
    let free = status.f_bavail.saturating_mul(status.f_frsize);
    let needed = bytes.saturating_add(MARGIN_BYTES);
    if bytes == 0 || needed <= free {
        return Ok(());
    }
    Err(PullError::at(
        directory,
        format!(
            "{} are free there and {} are needed: make room, or choose another place with --to or BACKSTOP_MODELS_DIR",
            gigabytes(free),
            gigabytes(needed)
        ),
    ))
}

/// As people read it.
pub(crate) fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} bytes"),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_said_before_anything_is_written() {
        let place = std::env::temp_dir().join("not/there/yet");
        check(&place, 1).unwrap();
        let error = check(&place, u64::MAX).unwrap_err().to_string();
        assert!(error.contains("are needed: make room"), "{error}");
        assert_eq!(gigabytes(32_021_618_688), "32.02 GB");
    }
}
