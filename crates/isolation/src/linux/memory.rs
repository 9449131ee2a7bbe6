//! The memory of all processes of a program together, by a control group where this process may make one: of the second
//! version, delegated to it, or of the first. Elsewhere `watch` adds it up.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NAME: &str = "backstop-contained";
/// A group can be removed when the last of its processes is gone, which the kernel may notice a little later.
const REMOVAL_TRIES: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(2);

/// How memory is bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// By groups below this one.
    Group { version: Version, parent: PathBuf },
    /// By each process's address space, and by adding up.
    Watched,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    First,
    Second,
}

/// Where a hierarchy is mounted, and which part of it.
struct Hierarchy {
    version: Version,
    root: PathBuf,
    place: PathBuf,
}

impl Memory {
    /// The first group below which another can be made.
    pub(crate) fn find() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let found = candidates(&mounts, &groups).into_iter();
        let mut groups = found.map(|(version, parent)| Self::Group { version, parent });
        groups
            .find(|group| group.group(64 << 20).is_ok())
            .unwrap_or(Self::Watched)
    }

    /// What it is called.
    pub(crate) fn layer(&self) -> &'static str {
        match self {
            Self::Group {
                version: Version::First,
                ..
            } => "control group (version 1) for all memory",
            Self::Group {
                version: Version::Second,
                ..
            } => "control group (version 2) for all memory",
            Self::Watched => "address space of each process, and a watch over all memory",
        }
    }

    /// A new group, if there are groups.
    pub(crate) fn group(&self, bytes: u64) -> io::Result<Option<Group>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Self::Group { version, parent } = self else {
            return Ok(None);
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{NAME}-{}-{number}", std::process::id());
        let group = Group {
            version: *version,
            path: parent.join(name),
        };
        fs::create_dir(&group.path)?;
        group.bound(bytes)?;
        Ok(Some(group))
    }

    /// Removes the groups of processes that were killed before they could. Groups that are in use stay.
    pub(crate) fn sweep(&self) {
        let Self::Group { parent, .. } = self else {
            return;
        };
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let owner = name
                .strip_prefix(NAME)
                .and_then(|rest| rest.split('-').nth(1));
            let is_gone = |owner: &str| !Path::new("/proc").join(owner).exists();
            if owner.is_some_and(is_gone) {
                let _in_use = fs::remove_dir(entry.path());
            }
        }
    }
}

/// A control group, removed when it is let go.
#[derive(Debug)]
pub(crate) struct Group {
    version: Version,
    path: PathBuf,
}

impl Group {
    fn bound(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.to_string();
        // Swap is not counted by every kernel.
        let (always, swap) = match self.version {
            Version::First => (
                [("memory.limit_in_bytes", bytes.as_str())].to_vec(),
                // Memory and swap together.
                ("memory.memsw.limit_in_bytes", bytes.as_str()),
            ),
            Version::Second => (
                [("memory.max", bytes.as_str()), ("memory.oom.group", "1")].to_vec(),
                ("memory.swap.max", "0"),
            ),
        };
        for (file, value) in always {
            self.set(file, value)?;
        }
        match self.path.join(swap.0).exists() {
            true => self.set(swap.0, swap.1),
            false => Ok(()),
        }
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.path.join(file))?;
        file.write_all(value.as_bytes())
    }

    /// Puts a process into it, with all that it starts from now on.
    pub(crate) fn add(&self, process: u32) -> io::Result<()> {
        self.set("cgroup.procs", &process.to_string())
    }

    /// Whether the kernel had to kill for memory.
    pub(crate) fn ran_out(&self) -> bool {
        let file = match self.version {
            Version::First => "memory.oom_control",
            Version::Second => "memory.events",
        };
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        kills(&text) > 0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..REMOVAL_TRIES {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(REMOVAL_PAUSE);
                }
                _ => return,
            }
        }
    }
}

fn kills(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Groups below which others may be made: this process's own, and with the second version the one above, since a group
/// with processes in it gives its children no controllers.
fn candidates(mounts: &str, groups: &str) -> Vec<(Version, PathBuf)> {
    let mut found = Vec::new();
    for Hierarchy {
        version,
        root,
        place,
    } in mounts.lines().filter_map(hierarchy)
    {
        let Some(own) = groups.lines().find_map(|line| own(line, version)) else {
            continue;
        };
        let Ok(within) = Path::new(own).strip_prefix(&root) else {
            continue;
        };
        let own = place.join(within);
        if version == Version::Second && own != place {
            found.extend(own.parent().map(|above| (version, above.to_owned())));
        }
        found.push((version, own));
    }
    found
}

/// Of `number parent device root place options [fields] - type source options`.
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, place) = (PathBuf::from(mount.next()?), PathBuf::from(mount.next()?));
    let mut system = system.split(' ');
    let kind = system.next()?;
    let controllers = system.nth(1).unwrap_or_default();
    let version = match kind {
        "cgroup2" => Version::Second,
        "cgroup" if controllers.split(',').any(|name| name == "memory") => Version::First,
        _ => return None,
    };
    Some(Hierarchy {
        version,
        root,
        place,
    })
}

/// Of `number:controllers:path`.
fn own(line: &str, version: Version) -> Option<&str> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let is_it = match version {
        Version::First => controllers.split(',').any(|name| name == "memory"),
        Version::Second => controllers.is_empty(),
    };
    is_it.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "30 22 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 22 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
32 22 0:28 / / rw,relatime - ext4 /dev/vda rw";
    const SECOND: &str = "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";

    #[test]
    fn the_own_group_is_found_in_both_versions() {
        let found = candidates(FIRST, "4:memory:/some/where\n1:cpu:/\n0::/\n");
        let expected = [
            (Version::First, "/sys/fs/cgroup/memory/some/where".into()),
            (Version::Second, "/sys/fs/cgroup/unified".into()),
        ];
        assert_eq!(found, expected);
        let found = candidates(SECOND, "0::/user.slice/app.scope\n");
        let expected = [
            (Version::Second, "/sys/fs/cgroup/user.slice".into()),
            (
                Version::Second,
                "/sys/fs/cgroup/user.slice/app.scope".into(),
            ),
        ];
        assert_eq!(found, expected);
        assert!(candidates("nonsense", "0::/").is_empty());
    }

    #[test]
    fn kills_are_counted_in_both_versions() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills("low 0\noom 3\noom_kill 1\noom_group_kill 1\n"), 1);
        assert_eq!(kills(""), 0);
    }

    #[test]
    fn a_group_of_the_second_version_has_its_limits() {
        let name = format!("backstop-group-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        for file in [
            "memory.max",
            "memory.oom.group",
            "cgroup.procs",
            "memory.swap.max",
        ] {
            fs::write(path.join(file), "").unwrap();
        }
        let group = Group {
            version: Version::Second,
            path: path.clone(),
        };
        group.bound(1 << 30).unwrap();
        group.add(42).unwrap();
        let read = |file: &str| fs::read_to_string(group.path.join(file)).unwrap();
        assert_eq!(read("memory.max"), "1073741824");
        assert_eq!(read("memory.oom.group"), "1");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("cgroup.procs"), "42");
        assert!(!group.ran_out());
        fs::write(group.path.join("memory.events"), "oom_kill 1\n").unwrap();
        assert!(group.ran_out());
        // Only the kernel's own directories can be removed with their files.
        fs::remove_dir_all(path).unwrap();
    }
}
