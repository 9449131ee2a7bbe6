//! Where an encoder computes.

use candle_core::Device;

use crate::EncoderError;

/// Where an encoder computes, in single precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncoderDevice {
    /// The processor's cores.
    #[default]
    Cpu,
    /// The Apple GPU of this number, in a build with the feature `metal`.
    Metal(usize),
    /// The NVIDIA GPU of this number, in a build with the feature `cuda`.
    Cuda(usize),
}

impl EncoderDevice {
    /// Opens it.
    pub(crate) fn open(self) -> Result<Device, EncoderError> {
        let (device, feature, is_built, opened) = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Metal(number) => (
                "Metal",
                "metal",
                cfg!(feature = "metal"),
                Device::new_metal(number),
            ),
            Self::Cuda(number) => (
                "CUDA",
                "cuda",
                cfg!(feature = "cuda"),
                Device::new_cuda(number),
            ),
        };
        opened.map_err(|error| EncoderError::Device {
            device,
            reason: match is_built {
                true => error.to_string(),
                false => format!("this build is without it; build with the feature {feature}"),
            },
        })
    }
}
