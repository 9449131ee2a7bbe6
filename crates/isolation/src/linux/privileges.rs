//! Capabilities: kept for the stage that mounts, and given up for good before the program.

use rustix::io::{Errno, Result};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// Hands the capabilities of the user namespace on to the program that is executed next, whose user is not root there.
pub(crate) fn keep_for_next_program() -> Result<()> {
    let mut sets = capabilities(None)?;
    sets.inheritable = sets.permitted;
    set_capabilities(None, sets)?;
    each(sets.permitted, |capability| {
        configure_capability_in_ambient_set(capability, true)
    })
}

/// What the first process keeps: to look at how much memory the others have.
pub(crate) fn keep_looking() -> Result<()> {
    clear_ambient_capability_set()?;
    set_no_new_privs(true)?;
    let kept = CapabilitySet::SYS_PTRACE;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// Whom to become.
pub(crate) struct Somebody {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// Gives all of them up for good, and becomes somebody else if that is asked for.
pub(crate) fn give_up(somebody: Option<&Somebody>) -> Result<()> {
    clear_ambient_capability_set()?;
    each(CapabilitySet::from_bits_retain(u64::MAX), |capability| {
        match remove_capability_from_bounding_set(capability) {
            // The kernel knows no more of them.
            Err(Errno::INVAL) => Ok(()),
            other => other,
        }
    })?;
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    if let Some(Somebody { user, group }) = somebody {
        let (user, group) = (Uid::from_raw(*user), Gid::from_raw(*group));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
    }
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    set_no_new_privs(true)
}

fn each(set: CapabilitySet, act: impl Fn(CapabilitySet) -> Result<()>) -> Result<()> {
    (0..u64::BITS)
        .map(|place| CapabilitySet::from_bits_retain(1 << place))
        .filter(|capability| set.contains(*capability))
        .try_for_each(act)
}
