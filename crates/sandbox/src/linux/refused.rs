//! The calls that are refused, and with which arguments others are.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// Who is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A server, which never connects.
    Server,
    /// What connects to others over TCP.
    Client,
    /// A program that nobody trusts, in namespaces of its own, where there is nobody else to connect to.
    Contained,
}

/// Calls that are refused whatever they are asked.
#[rustfmt::skip]
const ALWAYS: &[c_long] = &[
    // Does what other calls do, unseen by this filter.
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    // Looks into other processes, or drives them.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd, libc::SYS_kcmp,
    // Looks into the kernel, or changes it.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_syslog,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module,
    libc::SYS_kexec_load, KEXEC_FILE_LOAD, LSM_SET_SELF_ATTR,
    // The kernel's keys.
    libc::SYS_add_key, libc::SYS_keyctl, libc::SYS_request_key,
    // What is mounted where.
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot,
    libc::SYS_move_mount, libc::SYS_open_tree, OPEN_TREE_ATTR, libc::SYS_mount_setattr,
    libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    // Other worlds.
    libc::SYS_setns, libc::SYS_unshare,
    // Files by something other than their paths, and files that are none.
    libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at, libc::SYS_fanotify_init,
    // The machine: its clock, names, memory and end.
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_swapon, libc::SYS_swapoff,
    libc::SYS_reboot, libc::SYS_acct, libc::SYS_quotactl, libc::SYS_quotactl_fd,
    libc::SYS_vhangup, libc::SYS_personality,
];

/// Calls that only this kind of processor has.
#[cfg(target_arch = "x86_64")]
const HERE: &[c_long] = &[libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const HERE: &[c_long] = &[];

/// Making files that are none, and the place of their kind.
#[cfg(target_arch = "x86_64")]
const MAKE_NODE: &[(c_long, u8)] = &[(libc::SYS_mknodat, 2), (libc::SYS_mknod, 1)];
#[cfg(not(target_arch = "x86_64"))]
const MAKE_NODE: &[(c_long, u8)] = &[(libc::SYS_mknodat, 2)];

/// Memory and messages that belong to no process and lie in no file system, so that no limit counts them.
const UNCOUNTED: &[c_long] = &[
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
];

// The numbers that the C library's crate lacks; all but the first are the same everywhere.
#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: c_long = 320;
#[cfg(not(target_arch = "x86_64"))]
const KEXEC_FILE_LOAD: c_long = 294;
const LSM_SET_SELF_ATTR: c_long = 460;
const OPEN_TREE_ATTR: c_long = 467;

/// The bits of a socket's type that are not flags.
const TYPE_MASK: u64 = 0xf;
/// New namespaces, by which a process would become privileged in a world of its own.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];
/// Puts words into the mouth of whoever sits at the terminal.
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];

/// What the filter compares calls with: no rule at all for a number means always.
pub(super) fn rules(caller: Caller) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let always = ALWAYS.iter().chain(HERE);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        always.map(|number| (*number, Vec::new())).collect();
    rules.insert(libc::SYS_clone, namespaces()?);
    rules.insert(libc::SYS_ioctl, terminal_input()?);
    match caller {
        Caller::Contained => {
            rules.insert(libc::SYS_socket, all_but_usual()?);
            rules.extend(UNCOUNTED.iter().map(|number| (*number, Vec::new())));
            for (number, kind) in MAKE_NODE {
                rules.insert(*number, devices(*kind)?);
            }
        }
        Caller::Server | Caller::Client => {
            rules.extend(MAKE_NODE.iter().map(|(number, _)| (*number, Vec::new())));
            rules.extend(ways_out(caller == Caller::Client)?);
        }
    }
    Ok(rules)
}

/// What leads to others, where there are others. Who `may_connect` may have TCP sockets, and connect them: where to,
/// Landlock says.
fn ways_out(may_connect: bool) -> Result<Vec<(i64, Vec<SeccompRule>)>, BackendError> {
    let mut rules = Vec::new();
    for number in [libc::SYS_socket, libc::SYS_socketpair] {
        rules.push((number, all_but_streams(may_connect)?));
    }
    if !may_connect {
        // An accepted connection could be dissolved by it, and be made anew with anybody.
        rules.push((libc::SYS_connect, Vec::new()));
    }
    // The flags' places. A socket that was never connected, or no longer is, would connect.
    for (number, flags) in [
        (libc::SYS_sendto, 3),
        (libc::SYS_sendmsg, 2),
        (libc::SYS_sendmmsg, 3),
    ] {
        rules.push((number, vec![has_bits(flags, MSG_FASTOPEN)?]));
    }
    Ok(rules)
}

const MSG_FASTOPEN: u64 = libc::MSG_FASTOPEN as u64;

/// Any family but the local one, and for who may connect the internet's; and of these datagrams, which can be sent to
/// anybody without a connection. A raw local socket is one of datagrams.
fn all_but_streams(may_connect: bool) -> Result<Vec<SeccompRule>, BackendError> {
    let families = match may_connect {
        false => &[libc::AF_UNIX] as &[libc::c_int],
        true => &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6],
    };
    let is_another = |family: &libc::c_int| condition(0, SeccompCmpOp::Ne, *family as u64);
    let all_others: Result<Vec<_>, _> = families.iter().map(is_another).collect();
    let of_type = |kind: libc::c_int| {
        let compared = SeccompCmpOp::MaskedEq(TYPE_MASK);
        rule(1, compared, kind as u64)
    };
    Ok(vec![
        SeccompRule::new(all_others?)?,
        of_type(libc::SOCK_DGRAM)?,
        of_type(libc::SOCK_RAW)?,
    ])
}

/// Anything but local sockets, TCP and UDP: the kernel's rarer protocols are where its faults are.
fn all_but_usual() -> Result<Vec<SeccompRule>, BackendError> {
    let is_another = |argument: u8, known: &[libc::c_int]| {
        let each = known
            .iter()
            .map(|value| condition(argument, SeccompCmpOp::Ne, *value as u64));
        each.collect::<Result<Vec<_>, _>>()
    };
    let families = is_another(0, &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6])?;
    let mut protocols = is_another(0, &[libc::AF_UNIX])?;
    protocols.extend(is_another(2, &[0, libc::IPPROTO_TCP, libc::IPPROTO_UDP])?);
    let raw = rule(1, SeccompCmpOp::MaskedEq(TYPE_MASK), libc::SOCK_RAW as u64)?;
    Ok(vec![
        SeccompRule::new(families)?,
        SeccompRule::new(protocols)?,
        raw,
    ])
}

fn devices(kind: u8) -> Result<Vec<SeccompRule>, BackendError> {
    let of_kind = |value: libc::mode_t| {
        let compared = SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT));
        rule(kind, compared, u64::from(value))
    };
    Ok(vec![of_kind(libc::S_IFCHR)?, of_kind(libc::S_IFBLK)?])
}

fn namespaces() -> Result<Vec<SeccompRule>, BackendError> {
    let flags = NAMESPACES.into_iter();
    flags.map(|flag| has_bits(0, flag as u64)).collect()
}

fn terminal_input() -> Result<Vec<SeccompRule>, BackendError> {
    let commands = TERMINAL_INPUT.into_iter();
    commands
        .map(|command| rule(1, SeccompCmpOp::Eq, command))
        .collect()
}

fn has_bits(argument: u8, bits: u64) -> Result<SeccompRule, BackendError> {
    rule(argument, SeccompCmpOp::MaskedEq(bits), bits)
}

/// The kernel looks at 32 bits of all these arguments, so the others are no way around.
fn rule(argument: u8, compared: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![condition(argument, compared, value)?])
}

fn condition(
    argument: u8,
    compared: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compared, value)
}
