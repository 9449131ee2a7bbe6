//! Whether all layers are there, found out by putting them around nothing, and what to do if not.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use super::run::run;
use super::{Identity, Isolation, Memory, outer};
use crate::{Ended, IsolationError, Job, Limits, Unavailable};

/// What every program has around it; without one of them, none is run.
const LAYERS: [&str; 11] = [
    "user namespace",
    "mount namespace, with a root file system of its own",
    "process namespace",
    "network namespace",
    "namespaces for IPC, names and control groups",
    "no capabilities",
    "no new privileges",
    "seccomp",
    "landlock",
    "limits of each process (rlimits)",
    "sizes of its file systems",
];

pub(super) fn tried(program: PathBuf) -> Result<Isolation, Unavailable> {
    let identity = Identity::find()?;
    let memory = Memory::find();
    memory.sweep();
    let mut isolation = Isolation {
        program,
        identity,
        memory,
        layers: Vec::new(),
    };
    let mut tried = try_all(&isolation);
    // A group that cannot be entered is no group.
    if tried.is_err() && isolation.memory != Memory::Watched {
        isolation.memory = Memory::Watched;
        tried = try_all(&isolation);
    }
    tried.map_err(|error| explained(&error))?;
    isolation.layers = LAYERS.to_vec();
    isolation.layers.push(isolation.memory.layer());
    Ok(isolation)
}

fn try_all(isolation: &Isolation) -> Result<(), IsolationError> {
    let program = [OsString::from("/nothing")];
    let job = Job {
        program: &program,
        directory: None,
        read_only: Vec::new(),
        environment: Vec::new(),
        input: b"nothing",
        limits: Limits::default(),
    };
    match run(isolation, &job, true)?.ended {
        Ended::Exited(0) => Ok(()),
        other => Err(IsolationError::Lost(format!("{other:?}"))),
    }
}

fn explained(error: &IsolationError) -> Unavailable {
    let (layer, reason) = match error {
        IsolationError::Layer { layer, reason } => (layer.clone(), reason.clone()),
        other => ("stages".to_owned(), other.to_string()),
    };
    let advice = advice(&layer, &reason, &sysctl);
    Unavailable {
        layer,
        reason,
        advice,
    }
}

fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some(text.trim().to_owned())
}

/// By the layer, and by what the system says of its own settings.
fn advice(layer: &str, reason: &str, sysctl: &dyn Fn(&str) -> Option<String>) -> String {
    let is = |name: &str, value: &str| sysctl(name).as_deref() == Some(value);
    let about_users = layer == outer::NAMESPACES || layer == outer::IDENTITIES;
    let text = match layer {
        _ if about_users && is("user/max_user_namespaces", "0") => {
            "user namespaces are switched off: sysctl user.max_user_namespaces=10000"
        }
        _ if about_users && is("kernel/unprivileged_userns_clone", "0") => {
            "user namespaces are for root alone here: sysctl kernel.unprivileged_userns_clone=1, or run this as root"
        }
        _ if (about_users
            || reason.contains("ermission denied")
            || reason.contains("not permitted"))
            && is("kernel/apparmor_restrict_unprivileged_userns", "1") =>
        {
            "AppArmor takes user namespaces from programs without a profile: give this one a profile that allows `userns`, \
             or sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        }
        _ if about_users => {
            "in a container, allow user namespaces, which the default seccomp profiles forbid (Docker: --security-opt \
             seccomp=unconfined --security-opt systempaths=unconfined; Podman: --security-opt seccomp=unconfined \
             --security-opt unmask=ALL), or run this on the host"
        }
        "process file system" => {
            "a container that covers parts of /proc allows no other /proc: let it cover none (Docker: --security-opt \
             systempaths=unconfined; Podman: --security-opt unmask=ALL; Kubernetes: procMount: Unmasked), or run this on \
             the host"
        }
        "landlock" => {
            "Linux 5.13 or newer has it, if the kernel's parameter lsm= lists it (lsm=landlock,...)"
        }
        "seccomp" => "run this on a kernel with CONFIG_SECCOMP_FILTER",
        "stages" => {
            "look whether this machine has memory left, and whether this program can be executed"
        }
        _ => {
            "run this on Linux 5.14 or newer, outside of containers that restrict mounts and namespaces"
        }
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_the_setting_that_is_in_the_way() {
        let none = |_: &str| None;
        let docker = advice(outer::NAMESPACES, "unshare: EPERM", &none);
        assert!(docker.contains("seccomp=unconfined"), "{docker}");
        let off = |name: &str| (name == "user/max_user_namespaces").then(|| "0".to_owned());
        let off = advice(outer::NAMESPACES, "unshare: ENOSPC", &off);
        assert!(off.contains("max_user_namespaces"), "{off}");
        let ubuntu = |name: &str| name.contains("apparmor").then(|| "1".to_owned());
        let ubuntu = advice("root file system", "Permission denied", &ubuntu);
        assert!(ubuntu.contains("AppArmor"), "{ubuntu}");
        assert!(advice("process file system", "", &none).contains("systempaths"));
    }
}
