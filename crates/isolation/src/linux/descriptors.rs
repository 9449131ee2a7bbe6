//! What a stage inherited beside its standard streams: a shell or a build tool may have left something open.

use std::fs;
use std::io;

/// Closes it. There must be nothing yet that this process opened itself.
pub(crate) fn close_inherited() -> io::Result<()> {
    let mut found: Vec<i32> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for descriptor in found.into_iter().filter(|descriptor| *descriptor > 2) {
        match nix::unistd::close(descriptor) {
            // The directory's own, which is closed by now.
            Ok(()) | Err(nix::errno::Errno::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
