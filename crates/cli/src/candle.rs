//! Candle's devices, as far as this build has them.

use backstop_executor::ComputeDevice;

use crate::args::CandleChoice;

/// Opens one.
#[cfg(feature = "candle")]
pub(crate) fn open(choice: CandleChoice) -> Result<ComputeDevice, String> {
    use backstop_candle::{CandleDevice, CandleDeviceKind};

    let (kind, index) = match choice {
        CandleChoice::Cpu => (CandleDeviceKind::Cpu, 0),
        CandleChoice::Metal => (CandleDeviceKind::Metal, 0),
        CandleChoice::Cuda(ordinal) => (CandleDeviceKind::Cuda, ordinal as usize),
    };
    let device = CandleDevice::open(kind, index).map_err(|error| error.to_string())?;
    Ok(ComputeDevice::Candle {
        device,
        free_bytes: crate::machine::available_memory_bytes(),
    })
}

/// There are none.
#[cfg(not(feature = "candle"))]
pub(crate) fn open(_: CandleChoice) -> Result<ComputeDevice, String> {
    Err("this build has no candle: build it with --features candle".to_owned())
}
