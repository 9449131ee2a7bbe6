//! The first stage: enters namespaces of its own, and starts what becomes the first process there.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::wire::{Entry, Failure, Layer, Message, own_socket, receive, send};
use super::{descriptors, init, privileges};

pub(crate) const NAME: &str = "outer";

/// What the layer is called that most machines lack, if they lack one.
pub(crate) const NAMESPACES: &str = "namespaces";
pub(crate) const IDENTITIES: &str = "user namespace";

pub(crate) fn run() -> i32 {
    // First of all, so that nothing that was left open is handed on.
    let closed = descriptors::close_inherited();
    let Ok(control) = own_socket() else {
        return 64;
    };
    let entered = closed
        .layer("descriptors", "closing what was inherited")
        .and_then(|()| enter(&control));
    match entered {
        Ok(status) => status,
        Err(failure) => {
            let _nobody_listens = send(&control, &Message::Failed(failure));
            1
        }
    }
}

fn enter(control: &UnixStream) -> Result<i32, Failure> {
    let entry: Entry = expected(control)?;
    // A terminal's signals are for the one who asks.
    let _is_leader_already = rustix::process::setsid();
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .layer(NAMESPACES, "unshare")?;
    match entry.maps {
        Some((user, group)) => {
            map_only(user, group).layer(IDENTITIES, "writing its users")?;
            privileges::keep_for_next_program().layer(IDENTITIES, "keeping its privileges")?;
        }
        None => {
            send(control, &Message::Entered).layer(IDENTITIES, "asking for its users")?;
            let _mapped: () = expected(control)?;
        }
    }
    let mut init = Command::new("/proc/self/exe")
        .args([crate::STAGE, init::NAME])
        .env_clear()
        .spawn()
        .layer("process namespace", "starting its first process")?;
    let status = init
        .wait()
        .layer("process namespace", "waiting for its first process")?;
    Ok(status.code().unwrap_or(1))
}

/// Without privileges, a process may map itself alone, and gives up changing groups for that.
fn map_only(user: u32, group: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

pub(crate) fn expected<T: serde::de::DeserializeOwned>(socket: &UnixStream) -> Result<T, Failure> {
    let message = receive(socket).layer("messages", "reading")?;
    message.ok_or_else(|| Failure::of("messages", "whoever asked is gone"))
}
