//! As whom a program runs.

use std::fs;

use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::Unavailable;

/// A number that systemd's table of users leaves to nobody, and that containers have as well.
const SOMEBODY: u32 = 65_533;

/// As whom programs run. It is never root, for whom the limit of processes does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// As whoever asks, who can map nobody else.
    Own { user: u32, group: u32 },
    /// As somebody whom nothing belongs to, since root asks.
    Another {
        /// The numbers that exist here, one to one.
        users: String,
        groups: String,
    },
}

impl Identity {
    pub(crate) fn find() -> Result<Self, Unavailable> {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        if user != 0 {
            return Ok(Self::Own { user, group });
        }
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/self/{name}")).map_err(|error| Unavailable {
                layer: "process file system".to_owned(),
                reason: format!("/proc/self/{name}: {error}"),
                advice: "mount /proc: mount -t proc proc /proc".to_owned(),
            })
        };
        let (users, groups) = (read("uid_map")?, read("gid_map")?);
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
        let can = capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
        if can && includes(&users, SOMEBODY) && includes(&groups, SOMEBODY) {
            return Ok(Self::Another {
                users: one_to_one(&users),
                groups: one_to_one(&groups),
            });
        }
        // Root of a user namespace that somebody else made is an ordinary user to the kernel.
        match outside(&users, 0) {
            Some(outside) if outside != 0 => Ok(Self::Own { user, group }),
            _ => Err(Unavailable {
                layer: "user namespace".to_owned(),
                reason: "this process is root, but may not become another user".to_owned(),
                advice: "run it as an ordinary user, or with the capabilities CAP_SETUID and CAP_SETGID and with users \
                         up to number 65533"
                    .to_owned(),
            }),
        }
    }

    /// The program's user and group.
    pub(crate) fn of_program(&self) -> (u32, u32) {
        match self {
            Self::Own { user, group } => (*user, *group),
            Self::Another { .. } => (SOMEBODY, SOMEBODY),
        }
    }

    /// Writes the users of a process's new namespace, if it cannot do so itself.
    pub(crate) fn write_maps(&self, process: u32) -> std::io::Result<()> {
        if let Self::Another { users, groups } = self {
            fs::write(format!("/proc/{process}/uid_map"), users)?;
            fs::write(format!("/proc/{process}/gid_map"), groups)?;
        }
        Ok(())
    }
}

/// The lines of a map: inside, outside, how many.
fn lines(map: &str) -> impl Iterator<Item = [u32; 3]> {
    map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some([next()?, next()?, next()?])
    })
}

fn includes(map: &str, number: u32) -> bool {
    outside(map, number).is_some()
}

fn outside(map: &str, number: u32) -> Option<u32> {
    lines(map).find_map(|[inside, outside, count]| {
        let place = number.checked_sub(inside)?;
        (place < count).then(|| outside + place)
    })
}

fn one_to_one(map: &str) -> String {
    lines(map)
        .map(|[inside, _, count]| format!("{inside} {inside} {count}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "         0          0 4294967295\n";
    const ROOTLESS: &str = "         0       1000          1\n         1     100000      65536\n";

    #[test]
    fn numbers_are_mapped_as_the_kernel_says() {
        assert_eq!(outside(ALL, 65_533), Some(65_533));
        assert_eq!(outside(ROOTLESS, 0), Some(1000));
        assert_eq!(outside(ROOTLESS, 65_533), Some(165_532));
        assert_eq!(outside("0 1000 1\n", 65_533), None);
        assert_eq!(one_to_one(ROOTLESS), "0 0 1\n1 1 65536\n");
    }
}
