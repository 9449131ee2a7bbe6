//! Opening a card.

#[cfg(feature = "nvidia")]
mod card;
#[cfg(feature = "nvidia")]
mod driver;

use std::sync::Arc;

use super::device::{Device, DeviceError};

/// Why no card can be used, in one line for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCuda {
    /// The features `cuda` and `linked-cuda` of this crate are off.
    #[error("this binary was built without CUDA")]
    NotBuilt,
    /// There is no library `libcuda`.
    #[error("there is no NVIDIA driver: no working libcuda.so.1 was found")]
    NoDriver,
    /// The driver is older than the kernels.
    #[error(
        "the NVIDIA driver is for CUDA {}.{}; Backstop needs one for CUDA 13.0, release 580 or newer",
        version / 1000, version % 1000 / 10
    )]
    OldDriver {
        /// As the driver reports it: 1000 * major + 10 * minor.
        version: i32,
    },
    /// The driver does not start, or knows no card.
    #[error("the NVIDIA driver finds no GPU: {0}")]
    NoDevice(String),
    /// There are fewer cards.
    #[error("there is no GPU {ordinal}: the NVIDIA driver finds {count}, numbered from 0")]
    NoSuchDevice {
        /// Which was asked for.
        ordinal: u32,
        /// How many there are.
        count: u32,
    },
    /// The kernels are for another kind of card.
    #[error(
        "GPU {ordinal} ({name}, sm_{major}{minor}) cannot run Backstop's kernels, which are for sm_90 (H100, H200)"
    )]
    WrongArchitecture {
        /// Which card.
        ordinal: u32,
        /// Its name.
        name: String,
        /// First part of its compute capability.
        major: i32,
        /// Second part of its compute capability.
        minor: i32,
    },
    /// A call failed that should not.
    #[error("GPU {ordinal} cannot be used: {error}")]
    Failed {
        /// Which card.
        ordinal: u32,
        /// What happened.
        error: DeviceError,
    },
}

/// Opens a card: checks driver and card, and loads all kernels.
pub fn open_nvidia(ordinal: u32) -> Result<Arc<dyn Device>, NoCuda> {
    #[cfg(feature = "nvidia")]
    return Ok(Arc::new(card::NvidiaDevice::open(ordinal)?));
    #[cfg(not(feature = "nvidia"))]
    {
        let _ = ordinal;
        Err(NoCuda::NotBuilt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_single_lines_for_people() {
        let old = NoCuda::OldDriver { version: 12_040 };
        assert!(
            old.to_string()
                .starts_with("the NVIDIA driver is for CUDA 12.4;")
        );
        let a100 = NoCuda::WrongArchitecture {
            ordinal: 0,
            name: "NVIDIA A100-SXM4-80GB".into(),
            major: 8,
            minor: 0,
        };
        let text = "GPU 0 (NVIDIA A100-SXM4-80GB, sm_80) cannot run Backstop's kernels, which are for sm_90 (H100, H200)";
        assert_eq!(a100.to_string(), text);
    }

    #[cfg(feature = "nvidia")]
    #[test]
    fn opening_a_card_works_or_says_why_not() {
        // Machines without a driver and machines with any card both run this.
        match open_nvidia(0) {
            Ok(device) => assert!(device.facts().multiprocessors > 0),
            Err(reason) => assert!(!reason.to_string().contains('\n'), "{reason}"),
        }
    }

    #[cfg(not(feature = "nvidia"))]
    #[test]
    fn without_the_feature_the_reason_is_that() {
        assert_eq!(open_nvidia(0).err(), Some(NoCuda::NotBuilt));
    }
}
