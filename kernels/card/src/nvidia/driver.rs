//! The driver: finding it, and what its errors mean.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute, CUresult};

use super::NoCuda;
use crate::device::DeviceError;

/// The oldest driver that loads the kernels, 1000 * major + 10 * minor.
const OLDEST: i32 = 13_000;
/// The compute capability that the kernels are compiled for.
const CAPABILITY: (i32, i32) = (9, 0);

/// A card that can run the kernels.
pub(super) struct Card {
    pub(super) device: CUdevice,
    pub(super) name: String,
    /// Version of the driver, for people.
    pub(super) driver: String,
}

/// Checks driver and card, in the order in which they can be missing.
pub(super) fn find(ordinal: u32) -> Result<Card, NoCuda> {
    if !is_loadable() {
        return Err(NoCuda::NoDriver);
    }
    let unusable = |error: DriverError| match error.0 {
        // What is linked in place of the driver answers this when there is none.
        CUresult::CUDA_ERROR_STUB_LIBRARY => NoCuda::NoDriver,
        _ => NoCuda::NoDevice(describe(error)),
    };
    let mut version = 0;
    // SAFETY: the driver writes a number; this works without `cuInit`.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(unusable)?;
    if version < OLDEST {
        return Err(NoCuda::OldDriver { version });
    }
    result::init().map_err(unusable)?;
    let count = result::device::get_count().map_err(unusable)?;
    let count = u32::try_from(count).unwrap_or(0);
    if ordinal >= count {
        return Err(NoCuda::NoSuchDevice { ordinal, count });
    }
    inspect(ordinal, version).map_err(|error| NoCuda::Failed {
        ordinal,
        error: failure("asking for its properties", error),
    })?
}

/// Whether there is a library. Everything else in `sys` panics where it or a function is missing.
#[cfg(not(feature = "linked-cuda"))]
fn is_loadable() -> bool {
    type Function = unsafe extern "C" fn();
    // SAFETY: loads a library of the system, which every other use of the driver does as well.
    unsafe {
        sys::is_culib_present() && sys::culib().get::<Function>(b"cuDriverGetVersion").is_ok()
    }
}

/// A program that has started has what it is linked with.
#[cfg(feature = "linked-cuda")]
fn is_loadable() -> bool {
    true
}

/// Checks the card.
fn inspect(ordinal: u32, version: i32) -> Result<Result<Card, NoCuda>, DriverError> {
    let device = result::device::get(ordinal.cast_signed())?;
    let name = result::device::get_name(device)?;
    let major = attribute(
        device,
        CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
    )?;
    let minor = attribute(
        device,
        CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    )?;
    if (major, minor) != CAPABILITY {
        return Ok(Err(NoCuda::WrongArchitecture {
            ordinal,
            name,
            major,
            minor,
        }));
    }
    let mut driver = format!("CUDA {}.{}", version / 1000, version % 1000 / 10);
    // The driver interface does not tell its release.
    if let Ok(release) = std::fs::read_to_string("/sys/module/nvidia/version") {
        driver = format!("{} ({driver})", release.trim());
    }
    Ok(Ok(Card {
        device,
        name,
        driver,
    }))
}

/// A property of a card.
pub(super) fn attribute(device: CUdevice, which: CUdevice_attribute) -> Result<i32, DriverError> {
    // SAFETY: the driver gave the device.
    unsafe { result::device::get_attribute(device, which) }
}

/// An error for people and for whoever decides whether to go on.
pub(super) fn failure(attempt: impl Into<String>, error: DriverError) -> DeviceError {
    DeviceError {
        attempt: attempt.into(),
        reason: describe(error),
        fatal: is_fatal(error.0),
    }
}

/// The driver's name and text of an error.
fn describe(error: DriverError) -> String {
    let name = match error.error_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        // Newer than this list of errors, perhaps.
        Err(_) => format!("CUDA error {}", error.0 as u32),
    };
    match error.error_string() {
        Ok(text) => format!("{name} ({})", text.to_string_lossy()),
        Err(_) => name,
    }
}

/// After these the context answers every call with an error, or the card is gone.
fn is_fatal(error: CUresult) -> bool {
    matches!(
        error,
        CUresult::CUDA_ERROR_DEINITIALIZED
            | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUresult::CUDA_ERROR_INVALID_CONTEXT
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUresult::CUDA_ERROR_CONTAINED
            | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_TENSOR_MEMORY_LEAK
            | CUresult::CUDA_ERROR_SYSTEM_NOT_READY
            | CUresult::CUDA_ERROR_MPS_RPC_FAILURE
            | CUresult::CUDA_ERROR_MPS_CLIENT_TERMINATED
            | CUresult::CUDA_ERROR_EXTERNAL_DEVICE
            | CUresult::CUDA_ERROR_UNKNOWN
    )
}
