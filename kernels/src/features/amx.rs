//! Whether the processor has AMX and the operating system lets this process use it.
#![cfg_attr(
    all(target_arch = "x86_64", target_os = "linux"),
    expect(unsafe_code, reason = "asks the processor and the kernel")
)]

/// Whether tiles of BF16 numbers and of bytes can be used, by every thread of this process. On
/// Linux the first call asks for the permission, which threads inherit.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) fn available() -> bool {
    use std::ffi::{c_int, c_long};

    unsafe extern "C" {
        fn syscall(number: c_long, ...) -> c_long;
    }
    const SYS_ARCH_PRCTL: c_long = 158;
    const ARCH_REQ_XCOMP_PERM: c_int = 0x1023;
    const XFEATURE_XTILEDATA: std::ffi::c_ulong = 18;

    // Leaf 7: bits 22, 24 and 25 are AMX-BF16, AMX-TILE and AMX-INT8.
    const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    if !super::has_avx512() || !is_x86_feature_detected!("avx512bf16") {
        return false;
    }
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    if leaf.edx & BITS != BITS {
        return false;
    }
    // SAFETY: the call changes nothing but what this process may use.
    unsafe { syscall(SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(super) fn available() -> bool {
    false
}
