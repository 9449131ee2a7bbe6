//! Files once more, by Landlock: what the mounts already say, enforced by another part of the kernel. Abstract sockets and
//! signals stay within as well, where the kernel can.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};

/// The newest interface that this has been tried with.
const TRIED: ABI = ABI::V7;
/// What may be read and executed.
const SYSTEM: [&str; 8] = [
    "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr", "/etc",
];
const WRITABLE: [&str; 3] = ["/work", "/tmp", "/dev/shm"];

/// Confines this process, and what it starts.
pub(crate) fn confine(read_only: &[PathBuf]) -> Result<(), String> {
    match restrict(read_only) {
        Ok(true) => Ok(()),
        Ok(false) => Err("the kernel has no Landlock, or it is switched off".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn restrict(read_only: &[PathBuf]) -> Result<bool, RulesetError> {
    let all = AccessFs::from_all(TRIED);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let execute = read | AccessFs::Execute;
    let system = SYSTEM.iter().map(Path::new);
    let shown = system.chain(read_only.iter().map(PathBuf::as_path));
    let status = Ruleset::default()
        .handle_access(all)?
        .scope(Scope::from_all(TRIED))?
        .create()?
        .add_rules(path_beneath_rules(shown, execute))?
        .add_rules(path_beneath_rules(WRITABLE, all))?
        .add_rules(path_beneath_rules(["/proc"], read))?
        .add_rules(path_beneath_rules(["/dev"], read | AccessFs::WriteFile))?
        .restrict_self()?;
    let is_there = matches!(status.landlock, LandlockStatus::Available { .. });
    Ok(is_there && status.ruleset != RulesetStatus::NotEnforced)
}
