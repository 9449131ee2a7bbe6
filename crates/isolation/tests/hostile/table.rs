//! What each program tries, and what must become of it.

use std::time::Duration;

use backstop_isolation::{Ended, Limits};

/// A program, and what is expected.
pub(crate) struct Hostile {
    pub(crate) what: &'static str,
    pub(crate) program: &'static [&'static str],
    pub(crate) limits: fn(&mut Limits),
    pub(crate) end: End,
    /// All of this.
    pub(crate) says: &'static [&'static str],
}

/// How it must end.
#[derive(Debug)]
pub(crate) enum End {
    Is(Ended),
    BySignal,
    OutOfMemory,
}

const DONE: End = End::Is(Ended::Exited(0));
const TIMED_OUT: End = End::Is(Ended::TimedOut);

fn as_usual(_limits: &mut Limits) {}

fn soon(limits: &mut Limits) {
    limits.wall = Duration::from_secs(3);
}

fn little_computing(limits: &mut Limits) {
    limits.cpu = Duration::from_secs(1);
}

const fn hostile(
    what: &'static str,
    program: &'static [&'static str],
    end: End,
    says: &'static [&'static str],
) -> Hostile {
    Hostile {
        what,
        program,
        limits: as_usual,
        end,
        says,
    }
}

const fn bounded(
    what: &'static str,
    program: &'static [&'static str],
    limits: fn(&mut Limits),
    end: End,
) -> Hostile {
    Hostile {
        what,
        program,
        limits,
        end,
        says: &[],
    }
}

#[rustfmt::skip]
pub(crate) const HOSTILE: &[Hostile] = &[
    hostile("forks until it may not", &["python", "fork_bomb.py"], DONE, &["stopped by EAGAIN with 23 children"]),
    bounded("doubles for ever", &["sh", "fork_bomb.sh"], soon, TIMED_OUT),
    hostile("starts threads", &["python", "thread_bomb.py"], DONE, &["stopped: can't start new thread early"]),
    hostile("fills memory alone", &["python", "memory_of_one.py"], End::OutOfMemory, &[]),
    hostile("fills memory by many", &["python", "memory_of_many.py"], End::OutOfMemory, &[]),
    hostile("unpacks a bomb", &["python", "memory_unpacked.py"], End::OutOfMemory, &["packed: "]),
    hostile("hides memory", &["python", "memory_of_nobody.py"], DONE, &["refused memfd_create: EPERM", "refused shmget: EPERM", "refused msgget: EPERM", "refused mq_open"]),
    hostile("fills the disk", &["python", "disk_fill.py"], DONE, &["/work: ENOSPC", "/tmp: ENOSPC", "/dev/shm: ENOSPC", "written: little"]),
    hostile("writes a long file", &["python", "large_file.py"], DONE, &["refused a long file: EFBIG", "refused a sparse file: EFBIG", "longest: 4194304"]),
    hostile("makes many files", &["python", "many_files.py"], DONE, &["stopped by ENOSPC early"]),
    hostile("makes directories in directories", &["python", "deep_directories.py"], DONE, &["stopped by ENOSPC early"]),
    hostile("opens many files", &["python", "descriptors.py"], DONE, &["stopped by EMFILE"]),
    hostile("writes for ever", &["python", "endless_output.py"], End::Is(Ended::TooMuchOutput), &["spam"]),
    hostile("complains for ever", &["sh", "endless_errors.sh"], End::Is(Ended::TooMuchOutput), &["spam"]),
    bounded("computes for ever", &["python", "endless_computing.py"], little_computing, TIMED_OUT),
    bounded("computes for ever and is deaf", &["python", "endless_computing_deaf.py"], little_computing, TIMED_OUT),
    bounded("sleeps for ever and is deaf", &["python", "sleeper.py"], soon, TIMED_OUT),
    bounded("stops itself", &["sh", "stopped.sh"], soon, TIMED_OUT),
    hostile("kills its parent", &["python", "killer.py"], DONE, &["its parent is still 1"]),
    hostile("connects", &["python", "network.py"], DONE, &["refused loopback of the host: ECONNREFUSED", "refused the world: ENETUNREACH", "refused the metadata service: ENETUNREACH", "refused the world by UDP: ENETUNREACH"]),
    hostile("makes rare sockets", &["python", "sockets.py"], DONE, &["refused raw ICMP: EPERM", "refused netlink: EPERM", "refused packets: EPERM", "refused abstract socket of the host", "refused socket file of the host: ENOENT"]),
    hostile("reads secrets", &["python", "secrets.py"], DONE, &["refused /etc/shadow: ENOENT", "refused /proc/1/environ", "processes: []", "more of the host: []"]),
    hostile("reads and commands the kernel", &["python", "proc.py"], DONE, &["refused writing /proc/sys/kernel/core_pattern", "refused writing /proc/sysrq-trigger", "nothing in /proc/cmdline", "nothing in /proc/kallsyms"]),
    hostile("leaves by links", &["python", "links.py"], DONE, &["refused a symbolic link: ENOENT", "refused names upwards: ENOENT", "refused a hard link to a program", "refused making a directory in the root"]),
    hostile("overwrites programs", &["python", "overwriting.py"], DONE, &["refused /proc/self/exe", "refused /run/stage", "refused /usr/bin/env", "refused running what contains it: EACCES"]),
    hostile("mounts, and makes worlds", &["python", "namespaces.py"], DONE, &["refused mount: EPERM", "refused unshare user: EPERM", "refused pivot_root: EPERM", "refused chroot: EPERM", "refused clone user: EPERM", "refused clone3: ENOSYS", "refused setns net: EPERM"]),
    hostile("looks into its parent", &["python", "debugging.py"], DONE, &["refused ptrace: EPERM", "refused process_vm_readv: EPERM", "refused /proc/1/mem"]),
    hostile("asks for rare calls", &["python", "kernel.py"], DONE, &["refused bpf: EPERM", "refused io_uring_setup: EPERM", "refused userfaultfd: EPERM"]),
    hostile("uses the kernel's keys", &["python", "keys.py"], DONE, &["refused add_key: EPERM", "refused keyctl: EPERM"]),
    hostile("commands the machine", &["python", "machine.py"], DONE, &["refused settimeofday: EPERM", "refused reboot: EPERM", "refused real-time scheduling: EPERM"]),
    hostile("becomes root", &["python", "root.py"], DONE, &["refused setuid", "contained ['/work/id', '-u']", "capabilities: {'0000000000000000'}", "no new privileges: 1 filters: 2 same user: True"]),
    hostile("raises its limits", &["python", "limits.py"], DONE, &["refused NPROC: EPERM", "refused CPU: EPERM", "refused CORE: EPERM"]),
    hostile("dumps its core", &["python", "core_dump.py"], End::Is(Ended::Killed(6)), &[]),
    hostile("fills its stack", &["python", "recursion.py"], End::BySignal, &[]),
    hostile("opens devices", &["python", "devices.py"], DONE, &["devices: ['fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'urandom', 'zero']", "refused mem: ENOENT", "refused making disk: EPERM", "a fifo can be made"]),
    hostile("types for the user", &["python", "terminal.py"], DONE, &["refused typing into 0: EPERM", "refused the terminal: ENOENT"]),
    hostile("looks for secrets around it", &["python", "environment.py"], DONE, &["variables: ['ABSTRACT', 'HOME', 'LANG', 'PATH', 'PORT', 'SECRET', 'SOCKET', 'TMPDIR', 'USER']", "open: ['/dev/null', 'pipe', 'pipe']", "more: []"]),
];
