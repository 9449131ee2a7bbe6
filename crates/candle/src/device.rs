//! Devices that candle computes on. What a build has of them is decided here and nowhere else.

use backstop_kernels::{BlockFormat, Element, WeightFormat};
use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device};

/// Which of candle's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandleDeviceKind {
    /// The machine's processors.
    Cpu,
    /// An Apple GPU.
    Metal,
    /// An NVIDIA GPU, by candle's own kernels and NVIDIA's libraries.
    Cuda,
}

impl CandleDeviceKind {
    /// As messages name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "candle on the CPU",
            Self::Metal => "candle on Metal",
            Self::Cuda => "candle on CUDA",
        }
    }

    /// Whether this build has it.
    pub const fn is_built_in(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Metal => cfg!(feature = "metal"),
            Self::Cuda => cfg!(feature = "cuda"),
        }
    }
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum CandleDeviceError {
    /// The build has no code for it.
    #[error("this build has no {}: {remedy}", kind.name())]
    NotBuiltIn {
        /// The device that was asked for.
        kind: CandleDeviceKind,
        /// How to get a build that has it.
        remedy: &'static str,
    },
    /// It could not be opened.
    #[error("{} cannot be used: {reason}", kind.name())]
    Unusable {
        /// The device that was asked for.
        kind: CandleDeviceKind,
        /// What candle or the system says.
        reason: String,
    },
}

/// Bytes of a device's own memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Those that nobody has taken.
    pub free_bytes: u64,
    /// All of them.
    pub total_bytes: u64,
}

/// A device that is open.
#[derive(Clone, Debug)]
pub struct CandleDevice {
    kind: CandleDeviceKind,
    device: Device,
}

impl CandleDevice {
    /// Opens the device with this number among those of its kind.
    pub fn open(kind: CandleDeviceKind, index: usize) -> Result<Self, CandleDeviceError> {
        let remedy = match kind {
            CandleDeviceKind::Cpu => "build with --features candle",
            CandleDeviceKind::Metal => "build with --features metal",
            CandleDeviceKind::Cuda => "build with scripts/candle_cuda/build",
        };
        if !kind.is_built_in() {
            return Err(CandleDeviceError::NotBuiltIn { kind, remedy });
        }
        let device = match kind {
            CandleDeviceKind::Cpu => Ok(Device::Cpu),
            CandleDeviceKind::Metal => open_metal(index),
            CandleDeviceKind::Cuda => open_cuda(index),
        };
        let device = device.map_err(|reason| CandleDeviceError::Unusable { kind, reason })?;
        Ok(Self { kind, device })
    }

    /// Which of candle's devices it is.
    pub fn kind(&self) -> CandleDeviceKind {
        self.kind
    }

    /// Whether it is no processor.
    pub fn is_gpu(&self) -> bool {
        self.kind != CandleDeviceKind::Cpu
    }

    /// Its own memory; `None` of one that shares the machine's.
    pub fn memory(&self) -> Option<DeviceMemory> {
        match &self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                let stream = device.cuda_stream();
                let bytes = stream.context().mem_get_info();
                bytes.ok().map(|(free, total)| DeviceMemory {
                    free_bytes: free as u64,
                    total_bytes: total as u64,
                })
            }
            _ => None,
        }
    }

    /// Bytes that numbers in this format take in its memory.
    pub fn bytes_of(&self, format: WeightFormat, numbers: usize) -> u64 {
        let bytes = match ggml_type(format) {
            Some(_) => format.bytes_of(numbers),
            None => numbers * self.numbers().size_in_bytes(),
        };
        bytes as u64
    }

    /// For candle's functions.
    pub(crate) fn inner(&self) -> &Device {
        &self.device
    }

    /// What dense matrices are kept in: BF16 where there are fast products of it.
    pub(crate) fn numbers(&self) -> DType {
        match self.kind {
            CandleDeviceKind::Cpu => DType::F32,
            CandleDeviceKind::Metal | CandleDeviceKind::Cuda => DType::BF16,
        }
    }

    /// Whether it rounds to E4M3.
    pub(crate) fn has_f8(&self) -> bool {
        self.kind != CandleDeviceKind::Metal
    }
}

/// The blocks of GGUF that candle multiplies with as they are.
pub(crate) fn ggml_type(format: WeightFormat) -> Option<GgmlDType> {
    let WeightFormat::Blocks(format) = format else {
        return None;
    };
    Some(match format {
        BlockFormat::Q4_0 => GgmlDType::Q4_0,
        BlockFormat::Q4_1 => GgmlDType::Q4_1,
        BlockFormat::Q5_0 => GgmlDType::Q5_0,
        BlockFormat::Q5_1 => GgmlDType::Q5_1,
        BlockFormat::Q8_0 => GgmlDType::Q8_0,
        BlockFormat::Q2K => GgmlDType::Q2K,
        BlockFormat::Q3K => GgmlDType::Q3K,
        BlockFormat::Q4K => GgmlDType::Q4K,
        BlockFormat::Q5K => GgmlDType::Q5K,
        BlockFormat::Q6K => GgmlDType::Q6K,
        _ => return None,
    })
}

/// The number format of the KV cache in candle's words.
pub(crate) fn kv_type(element: Element) -> DType {
    match element {
        Element::F32 => DType::F32,
        Element::BF16 => DType::BF16,
        Element::F8E4M3 => unreachable!("the abilities have no such cache"),
    }
}

/// Opens an Apple GPU, of which virtual machines have none.
fn open_metal(index: usize) -> Result<Device, String> {
    #[cfg(feature = "metal")]
    if index >= candle_metal_kernels::metal::Device::all().len() {
        return Err("macOS knows no such GPU".to_owned());
    }
    Device::new_metal(index).map_err(|error| first_line(&error))
}

/// Opens an NVIDIA GPU that has all of candle's kernels: on older ones those for BF16 are found missing in the middle of
/// a model.
#[cfg(feature = "cuda")]
fn open_cuda(index: usize) -> Result<Device, String> {
    use candle_core::cuda::cudarc::driver::result;
    use candle_core::cuda::cudarc::driver::sys::CUresult;

    result::init().map_err(|error| match error.0 {
        // What is linked in place of the driver answers this when there is none.
        CUresult::CUDA_ERROR_STUB_LIBRARY => {
            "there is no NVIDIA driver: no working libcuda.so.1 was found".to_owned()
        }
        _ => error.to_string(),
    })?;
    let device = Device::new_cuda(index).map_err(|error| first_line(&error))?;
    if let Device::Cuda(cuda) = &device {
        let capability = cuda.cuda_stream().context().compute_capability();
        let (major, minor) = capability.map_err(|error| error.to_string())?;
        if major < 8 {
            return Err(format!(
                "GPU {index} is sm_{major}{minor}, and candle's kernels for BF16 need sm_80"
            ));
        }
    }
    Ok(device)
}

/// Candle says that there are none.
#[cfg(not(feature = "cuda"))]
fn open_cuda(index: usize) -> Result<Device, String> {
    Device::new_cuda(index).map_err(|error| first_line(&error))
}

/// Candle puts backtraces behind its messages.
fn first_line(error: &candle_core::Error) -> String {
    let message = error.to_string();
    message.lines().next().unwrap_or_default().to_owned()
}
