//! A process file system of the new process namespace, without what tells of the host or commands it.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, mount as mount_at, mount_bind};

/// What programs look for beside processes. All else that a kernel may have here is covered.
const SHOWN: [&str; 12] = [
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "mounts",
    "net",
    "self",
    "stat",
    "thread-self",
    "uptime",
    "version",
    // Sealed like everything that is bound here.
    "sys",
];
/// An empty directory, outside of the new root.
const EMPTY: &str = "/empty";

/// Mounts it. Processes of other users do not appear.
pub(crate) fn mount(place: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_at("proc", place, "proc", flags, c"hidepid=2")?;
    fs::create_dir(EMPTY)?;
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_process = name.bytes().all(|byte| byte.is_ascii_digit());
        let kind = entry.file_type()?;
        let covering = match name.as_ref() {
            _ if is_process || kind.is_symlink() => continue,
            "sys" => entry.path(),
            shown if SHOWN.contains(&shown) => continue,
            _ if kind.is_dir() => EMPTY.into(),
            _ => "/old/dev/null".into(),
        };
        mount_bind(covering, entry.path())?;
    }
    Ok(())
}
