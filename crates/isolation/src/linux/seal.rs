//! Makes all mounts of the new root unchangeable but those that are a program's own: also those that came with others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount_remount};

/// What may be written, and the process file system, whose own files say who may.
const OPEN: [&str; 4] = ["/work", "/tmp", "/dev/shm", "/proc"];
/// Where devices are: bound one by one.
const WITH_DEVICES: [&str; 2] = ["/dev", "/proc"];

/// A mount, as the kernel lists it.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    place: PathBuf,
    flags: MountFlags,
}

/// Seals every mount at `root` and below.
pub(crate) fn below(root: &str) -> io::Result<()> {
    let list = fs::read_to_string(Path::new(root).join("proc/self/mountinfo"))?;
    for Mount { place, flags } in list.lines().filter_map(parse) {
        let Ok(within) = place.strip_prefix(root) else {
            continue;
        };
        let within = Path::new("/").join(within);
        if OPEN.iter().any(|open| within == Path::new(open)) {
            continue;
        }
        let mut flags = flags | MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
        if !WITH_DEVICES.iter().any(|with| within.starts_with(with)) {
            flags |= MountFlags::NODEV;
        }
        mount_remount(&place, flags, "")
            .map_err(|error| io::Error::other(format!("{}: {error}", within.display())))?;
    }
    Ok(())
}

/// Number, parent, device, root, place, options …
fn parse(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ').skip(4);
    let place = PathBuf::from(unescaped(fields.next()?));
    let flags = fields.next()?.split(',').filter_map(flag).collect();
    Some(Mount { place, flags })
}

/// What a mount has already may not be taken from it without privileges over it, so it is kept.
fn flag(option: &str) -> Option<MountFlags> {
    Some(match option {
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        "nosymfollow" => MountFlags::NOSYMFOLLOW,
        _ => return None,
    })
}

/// Blanks, tabs, ends of lines and backslashes are written in octal.
fn unescaped(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (escaped, plain)| {
        text.replace(escaped, plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_is_read() {
        let line = "36 35 98:0 /mnt1 /new/opt/a\\040b rw,nosuid,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let expected = Mount {
            place: "/new/opt/a b".into(),
            flags: MountFlags::NOSUID | MountFlags::NOATIME,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("nonsense"), None);
    }
}
