//! The kernel's calls, by seccomp.
//!
//! Two filters, since a filter has one answer. The first refuses (`refused`); its head, which
//! seccompiler writes, ends a process that calls by another processor's numbers (32-bit calls of
//! x86 and Arm), so these are no way around. The second says that calls are not there which the
//! first cannot judge.

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompFilter, TargetArch,
    apply_filter_all_threads, sock_filter,
};

use super::refused::{self, Caller};
use crate::{CallsConfinement, SandboxError};

pub(crate) fn confine_calls(caller: Caller) -> Result<CallsConfinement, SandboxError> {
    let Ok(architecture) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(absent("calls are not known for this kind of processor"));
    };
    let refusing = refusing(architecture, caller);
    let refusing = refusing.map_err(|error| SandboxError::Calls(error.to_string()))?;
    for filter in [refusing, denying()] {
        match apply_filter_all_threads(&filter) {
            Ok(()) => {}
            Err(Error::Prctl(error) | Error::Seccomp(error)) => {
                let reason = format!("the kernel takes no filter of calls: {error}");
                return Ok(CallsConfinement::Absent { reason });
            }
            Err(error) => return Err(SandboxError::Calls(error.to_string())),
        }
    }
    Ok(CallsConfinement::Full)
}

fn absent(reason: &str) -> CallsConfinement {
    let reason = reason.to_owned();
    CallsConfinement::Absent { reason }
}

/// Answers EPERM to what is refused.
fn refusing(architecture: TargetArch, caller: Caller) -> Result<BpfProgram, BackendError> {
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(
        refused::rules(caller)?,
        SeccompAction::Allow,
        refused,
        architecture,
    )?;
    filter.try_into()
}

/// Answers ENOSYS, as a kernel without them would, to two kinds of calls. `clone3` has its flags
/// where no filter can read them, and C libraries then take `clone`. Calls of x32, a second set of
/// numbers for 64-bit processors, would pass the other filter by: those with its bit, and those that
/// older kernels take without it.
fn denying() -> BpfProgram {
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let mut program = vec![load_number()];
    program.extend(answer_if(Range::only(libc::SYS_clone3 as u32), &unknown));
    if cfg!(target_arch = "x86_64") {
        for range in X32 {
            program.extend(answer_if(range, &unknown));
        }
    }
    program.push(answer(&SeccompAction::Allow));
    program
}

/// Numbers of calls, the last included.
#[derive(Clone, Copy)]
struct Range {
    first: u32,
    last: u32,
}

impl Range {
    const fn only(number: u32) -> Self {
        let (first, last) = (number, number);
        Self { first, last }
    }
}

const X32: [Range; 2] = [
    Range {
        first: 0x4000_0000,
        last: u32::MAX,
    },
    Range {
        first: 512,
        last: 547,
    },
];

/// Instructions: a number in the range gets the answer, others go on behind them.
fn answer_if(range: Range, action: &SeccompAction) -> [sock_filter; 3] {
    [
        jump(libc::BPF_JGE, range.first, 0, 2),
        jump(libc::BPF_JGT, range.last, 1, 0),
        answer(action),
    ]
}

fn load_number() -> sock_filter {
    // The number is the first field of what the filter sees.
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)
}

fn answer(action: &SeccompAction) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, u32::from(action.clone()))
}

fn jump(compared: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter {
        jt: if_true,
        jf: if_false,
        ..instruction(libc::BPF_JMP | compared | libc::BPF_K, value)
    }
}

fn instruction(code: u32, value: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k: value,
    }
}

#[cfg(test)]
mod tests;
