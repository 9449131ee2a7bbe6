//! What the filters answer, by running them as the kernel does.

use super::*;

const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const KILLED: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const X32_BIT: i64 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// i386 and Arm, in whose numbers a process of this kind can call too.
#[cfg(target_arch = "x86_64")]
const OTHER_ARCHITECTURE: u32 = 0x4000_0003;
#[cfg(target_arch = "aarch64")]
const OTHER_ARCHITECTURE: u32 = 0x4000_0028;

/// A call as a filter sees it: number, architecture, address, six arguments.
fn seen(number: i64, architecture: u32, arguments: &[u64]) -> Vec<u32> {
    let mut words = vec![number as u32, architecture, 0, 0];
    for place in 0..6 {
        let argument = arguments.get(place).copied().unwrap_or(0);
        words.extend([argument as u32, (argument >> 32) as u32]);
    }
    words
}

/// The instructions that seccompiler and this crate write.
fn run(program: &BpfProgram, seen: &[u32]) -> u32 {
    let (mut at, mut value) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at].clone();
        let jumped = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1;
        at += match code {
            0x20 => {
                value = seen[k as usize / 4];
                0
            }
            0x54 => {
                value &= k;
                0
            }
            0x05 => k as usize,
            0x15 => jumped(value == k),
            0x25 => jumped(value > k),
            0x35 => jumped(value >= k),
            0x06 => return k,
            other => panic!("an instruction that is not known: {other:#x}"),
        };
    }
}

/// What the kernel makes of both filters' answers: the sternest, which are the smallest as signed
/// numbers.
fn answer_to(caller: Caller, seen: &[u32]) -> u32 {
    let refusing = refusing(
        TargetArch::try_from(std::env::consts::ARCH).unwrap(),
        caller,
    )
    .unwrap();
    let answers = [run(&refusing, seen), run(&denying(), seen)];
    let sternest = answers.into_iter().min_by_key(|answer| *answer as i32);
    sternest.unwrap()
}

fn call(number: i64, arguments: &[u64]) -> u32 {
    answer_to(Caller::Server, &seen(number, ARCHITECTURE, arguments))
}

fn contained(number: i64, arguments: &[u64]) -> u32 {
    answer_to(Caller::Contained, &seen(number, ARCHITECTURE, arguments))
}

#[test]
fn what_a_server_does_is_allowed() {
    let calls = [
        libc::SYS_accept4,
        libc::SYS_epoll_pwait,
        libc::SYS_eventfd2,
        libc::SYS_execve,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_kill,
        libc::SYS_madvise,
        libc::SYS_mbind,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_openat,
        libc::SYS_pidfd_open,
        libc::SYS_pipe2,
        libc::SYS_prctl,
        libc::SYS_prlimit64,
        libc::SYS_recvfrom,
        libc::SYS_setpriority,
        libc::SYS_setsockopt,
        libc::SYS_shutdown,
        libc::SYS_timerfd_create,
        libc::SYS_wait4,
        libc::SYS_write,
        libc::SYS_writev,
    ];
    for number in calls {
        assert_eq!(call(number, &[1, 1, 1, 1]), ALLOWED, "{number}");
    }
}

#[test]
fn what_no_server_does_is_refused_whatever_it_is_asked() {
    let calls = [
        libc::SYS_bpf,
        libc::SYS_connect,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_setup,
        libc::SYS_mount,
        libc::SYS_open_tree,
        libc::SYS_ptrace,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_userfaultfd,
    ];
    for number in calls {
        assert_eq!(call(number, &[]), REFUSED, "{number}");
        assert_eq!(call(number, &[u64::MAX; 6]), REFUSED, "{number}");
    }
}

#[test]
fn sockets_are_local_streams() {
    let flags = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64;
    for number in [libc::SYS_socket, libc::SYS_socketpair] {
        let socket = |family: libc::c_int, kind: libc::c_int| {
            let (family, kind) = (family as u64, kind as u64);
            let with_flags = call(number, &[family, kind | flags]);
            assert_eq!(call(number, &[family, kind]), with_flags);
            // The kernel does not look at the upper half.
            assert_eq!(
                call(number, &[family | 1 << 40, kind | 1 << 40]),
                with_flags
            );
            with_flags
        };
        assert_eq!(socket(libc::AF_UNIX, libc::SOCK_STREAM), ALLOWED);
        assert_eq!(socket(libc::AF_UNIX, libc::SOCK_SEQPACKET), ALLOWED);
        assert_eq!(socket(libc::AF_UNIX, libc::SOCK_DGRAM), REFUSED);
        assert_eq!(socket(libc::AF_UNIX, libc::SOCK_RAW), REFUSED);
        let families = [
            libc::AF_UNSPEC,
            libc::AF_INET,
            libc::AF_INET6,
            libc::AF_NETLINK,
            libc::AF_PACKET,
            libc::AF_ALG,
            libc::AF_VSOCK,
        ];
        for family in families {
            assert_eq!(socket(family, libc::SOCK_STREAM), REFUSED, "{family}");
        }
    }
}

#[test]
fn sending_connects_nobody() {
    let fast_open = libc::MSG_FASTOPEN as u64;
    let no_signal = libc::MSG_NOSIGNAL as u64;
    assert_eq!(call(libc::SYS_sendto, &[3, 1, 1, no_signal]), ALLOWED);
    let refused = call(libc::SYS_sendto, &[3, 1, 1, no_signal | fast_open]);
    assert_eq!(refused, REFUSED);
    assert_eq!(call(libc::SYS_sendmsg, &[3, 1, no_signal]), ALLOWED);
    assert_eq!(call(libc::SYS_sendmsg, &[3, 1, fast_open]), REFUSED);
    assert_eq!(call(libc::SYS_sendmmsg, &[3, 1, 1, fast_open]), REFUSED);
}

#[test]
fn processes_and_threads_stay_in_their_namespaces() {
    let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_FILES;
    assert_eq!(call(libc::SYS_clone, &[thread as u64]), ALLOWED);
    assert_eq!(call(libc::SYS_clone, &[libc::SIGCHLD as u64]), ALLOWED);
    for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWNS] {
        let flags = (libc::SIGCHLD | flag) as u64;
        assert_eq!(call(libc::SYS_clone, &[flags]), REFUSED);
    }
    assert_eq!(call(libc::SYS_clone3, &[]), UNKNOWN);
}

#[test]
fn nobody_types_for_the_terminal() {
    assert_eq!(call(libc::SYS_ioctl, &[0, 0x5401]), ALLOWED);
    assert_eq!(call(libc::SYS_ioctl, &[0, 0x5412]), REFUSED);
    assert_eq!(call(libc::SYS_ioctl, &[0, 0x541c]), REFUSED);
}

#[test]
fn other_sets_of_numbers_are_no_way_around() {
    let foreign = seen(libc::SYS_getpid, OTHER_ARCHITECTURE, &[]);
    assert_eq!(answer_to(Caller::Server, &foreign), KILLED);
    if cfg!(target_arch = "x86_64") {
        let inet = [libc::AF_INET as u64, libc::SOCK_STREAM as u64];
        assert_eq!(call(libc::SYS_socket | X32_BIT, &inet), UNKNOWN);
        assert_eq!(call(libc::SYS_getpid | X32_BIT, &[]), UNKNOWN);
        // x32's ptrace and execve, with its bit and without.
        for number in [520, 521] {
            assert_eq!(call(number | X32_BIT, &[]), UNKNOWN);
            assert_eq!(call(number, &[]), UNKNOWN);
        }
        assert_eq!(call(511, &[]), ALLOWED);
        assert_eq!(call(548, &[]), ALLOWED);
    }
}

#[test]
fn a_contained_program_has_usual_sockets_and_no_others() {
    let socket = |family: libc::c_int, kind: libc::c_int, protocol: libc::c_int| {
        let arguments = [family as u64, kind as u64, protocol as u64];
        contained(libc::SYS_socket, &arguments)
    };
    for family in [libc::AF_INET, libc::AF_INET6] {
        assert_eq!(socket(family, libc::SOCK_STREAM, 0), ALLOWED);
        assert_eq!(
            socket(family, libc::SOCK_STREAM, libc::IPPROTO_TCP),
            ALLOWED
        );
        assert_eq!(socket(family, libc::SOCK_DGRAM, libc::IPPROTO_UDP), ALLOWED);
        assert_eq!(
            socket(family, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
            REFUSED
        );
        assert_eq!(
            socket(family, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
            REFUSED
        );
        assert_eq!(socket(family, libc::SOCK_RAW, libc::IPPROTO_UDP), REFUSED);
    }
    assert_eq!(socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0), ALLOWED);
    for family in [
        libc::AF_NETLINK,
        libc::AF_PACKET,
        libc::AF_ALG,
        libc::AF_VSOCK,
    ] {
        assert_eq!(socket(family, libc::SOCK_DGRAM, 0), REFUSED, "{family}");
    }
    assert_eq!(contained(libc::SYS_connect, &[3]), ALLOWED);
}

#[test]
fn a_contained_program_has_nothing_that_no_limit_counts() {
    for number in UNCOUNTED_HERE {
        assert_eq!(contained(number, &[]), REFUSED, "{number}");
        assert_eq!(call(number, &[]), ALLOWED, "{number}");
    }
    for number in [libc::SYS_ptrace, libc::SYS_bpf, libc::SYS_unshare] {
        assert_eq!(contained(number, &[]), REFUSED, "{number}");
    }
    let node = |kind: libc::mode_t| contained(libc::SYS_mknodat, &[3, 1, u64::from(kind | 0o600)]);
    assert_eq!(node(libc::S_IFIFO), ALLOWED);
    assert_eq!(node(libc::S_IFCHR), REFUSED);
    assert_eq!(node(libc::S_IFBLK), REFUSED);
}

const UNCOUNTED_HERE: [i64; 3] = [libc::SYS_memfd_create, libc::SYS_shmget, libc::SYS_msgget];
