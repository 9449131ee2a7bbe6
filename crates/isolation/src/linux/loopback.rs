//! The network namespace's only interface, which is down at first: programs talk to themselves by it, and to nobody else.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};

/// A message's head (16 bytes) and what it says of an interface (16 bytes).
const LENGTH: u32 = 32;
const NEW_LINK: u16 = 16;
const ERROR: u16 = 2;
/// A request, to be acknowledged.
const FLAGS: u16 = 1 | 4;
/// The first interface of a namespace is always this one.
const INDEX: i32 = 1;
const UP: u32 = 1;

/// Switches it on.
pub(crate) fn up() -> io::Result<()> {
    // The protocol of routes and interfaces is the family's first.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut answer = [0_u8; 256];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    outcome(&answer[..length])
}

fn request() -> Vec<u8> {
    let mut message = LENGTH.to_ne_bytes().to_vec();
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(FLAGS.to_ne_bytes());
    message.extend([0; 8]);
    // Family, padding and type of device.
    message.extend([0; 4]);
    message.extend(INDEX.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    // Which flags are meant.
    message.extend(UP.to_ne_bytes());
    message
}

/// An acknowledgement is an error with the number 0.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let unknown = || io::Error::other("the kernel's answer is not understood");
    let kind = answer.get(4..6).ok_or_else(unknown)?;
    let number = answer.get(16..20).ok_or_else(unknown)?;
    if kind != ERROR.to_ne_bytes() {
        return Err(unknown());
    }
    match i32::from_ne_bytes(number.try_into().map_err(|_| unknown())?) {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(-number)),
    }
}
