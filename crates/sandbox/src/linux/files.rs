//! Files, programs and ports, by Landlock.

use std::fs;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

use crate::{FilesConfinement, Sandbox, SandboxError};

/// The newest interface that this has been tried with. What later ones add is refused by the
/// filter of calls: UDP, and connections to local sockets.
const TRIED: ABI = ABI::V7;
/// From which version of the interface on something can be confined that could not before.
const LATER: [(i32, &str); 4] = [
    (3, "truncating files"),
    (4, "TCP"),
    (5, "commands to devices"),
    (6, "abstract sockets and signals"),
];

pub(crate) fn confine_files(sandbox: &Sandbox) -> Result<FilesConfinement, SandboxError> {
    // Without /proc nobody can say, and the caller promised it.
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(SandboxError::Threads(threads));
    }
    let status = restrict(sandbox).map_err(|error| SandboxError::Files(error.to_string()))?;
    Ok(confinement(&status.landlock))
}

/// What the kernel cannot do is left out; privileges cannot be gained any more in any case.
fn restrict(sandbox: &Sandbox) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile;
    let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    let allowed = |ports: &[u16], access: AccessNet| {
        let rules = ports.iter().map(|port| NetPort::new(*port, access));
        let rules: Vec<Result<NetPort, RulesetError>> = rules.map(Ok).collect();
        rules
    };
    Ruleset::default()
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(Scope::from_all(TRIED))?
        .create()?
        .add_rules(path_beneath_rules(&sandbox.read, read))?
        .add_rules(path_beneath_rules(
            &sandbox.read_execute,
            read | AccessFs::Execute,
        ))?
        .add_rules(path_beneath_rules(&sandbox.remove_in, AccessFs::RemoveFile))?
        .add_rules(path_beneath_rules(&sandbox.devices, device))?
        .add_rules(path_beneath_rules(&sandbox.write, write))?
        .add_rules(allowed(&sandbox.bind_ports, AccessNet::BindTcp))?
        .add_rules(allowed(&sandbox.connect_ports, AccessNet::ConnectTcp))?
        .restrict_self()
}

fn confinement(landlock: &LandlockStatus) -> FilesConfinement {
    match landlock {
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => by_version(kernel_abi.unwrap_or(*effective_abi as i32)),
        LandlockStatus::NotEnabled => absent(
            "the kernel has Landlock, which is switched off (the parameter lsm= can list it)",
        ),
        LandlockStatus::NotImplemented => {
            absent("the kernel has no Landlock, or a container's filter of calls hides it")
        }
    }
}

fn by_version(abi: i32) -> FilesConfinement {
    let missing: Vec<&str> = LATER
        .into_iter()
        .filter(|(since, _)| abi < *since)
        .map(|(_, what)| what)
        .collect();
    match missing.is_empty() {
        true => FilesConfinement::Full { abi },
        false => FilesConfinement::Partial { abi, missing },
    }
}

fn absent(reason: &str) -> FilesConfinement {
    let reason = reason.to_owned();
    FilesConfinement::Absent { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_kernel_cannot_confine_is_named() {
        assert_eq!(by_version(7), FilesConfinement::Full { abi: 7 });
        assert_eq!(by_version(6), FilesConfinement::Full { abi: 6 });
        let missing = vec!["commands to devices", "abstract sockets and signals"];
        assert_eq!(by_version(4), FilesConfinement::Partial { abi: 4, missing });
        assert!(!confinement(&LandlockStatus::NotEnabled).is_enforced());
    }

    #[test]
    fn other_threads_are_an_error() {
        // Tests have a thread each, beside the first.
        let outcome = Sandbox::default().confine_files();
        assert!(
            matches!(outcome, Err(SandboxError::Threads(2..))),
            "{outcome:?}"
        );
    }
}
