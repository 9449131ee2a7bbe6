//! Chooses where to compute.

use backstop_card::{Device, NoCuda, open_nvidia};
use backstop_executor::{ComputeDevice, format_bytes};

use crate::args::{CandleChoice, DeviceChoice, ModelArgs};
use crate::{candle, machine};

/// What the settings and the machine give; says so in the log.
pub(crate) fn choose(args: &ModelArgs) -> Result<ComputeDevice, String> {
    let choice = args.device();
    let device = match choice {
        DeviceChoice::Cpu => Ok(cpu()),
        DeviceChoice::Cuda(ordinal) => cuda(ordinal),
        DeviceChoice::Candle(choice) => candle::open(choice),
        DeviceChoice::Auto => Ok(best()),
    };
    let device = device.map_err(|reason| format!("--device {choice}: {reason}"))?;
    match &device {
        ComputeDevice::Cuda(card) => tracing::info!("computing on {}", describe(&**card)),
        other => tracing::info!("computing on {}", other.name()),
    }
    Ok(device)
}

/// The first GPU, or else the processors.
pub(crate) fn best() -> ComputeDevice {
    let reason = match cuda(0) {
        Ok(device) => return device,
        Err(reason) => reason,
    };
    candle::open(CandleChoice::Metal).unwrap_or_else(|_| {
        tracing::info!("no GPU: {reason}");
        cpu()
    })
}

/// What computes a model that this device has no kernels for.
pub(crate) fn instead_of(device: &ComputeDevice) -> Option<ComputeDevice> {
    match device {
        ComputeDevice::Cpu { .. } => None,
        ComputeDevice::Cuda(_) => {
            Some(candle::open(CandleChoice::Cuda(0)).unwrap_or_else(|_| cpu()))
        }
        #[cfg(feature = "candle")]
        ComputeDevice::Candle { .. } => Some(cpu()),
    }
}

/// The machine's processors, and what is free of its memory.
pub(crate) fn cpu() -> ComputeDevice {
    ComputeDevice::Cpu {
        free_bytes: machine::available_memory_bytes(),
    }
}

/// An NVIDIA card: by the native kernels if they are for it, or else by candle's.
fn cuda(ordinal: u32) -> Result<ComputeDevice, String> {
    match open_nvidia(ordinal) {
        Ok(device) => Ok(ComputeDevice::Cuda(device)),
        Err(reason @ NoCuda::WrongArchitecture { .. }) => {
            let candle = candle::open(CandleChoice::Cuda(ordinal));
            candle.map_err(|without| format!("{reason}; {without}"))
        }
        Err(reason) => Err(reason.to_string()),
    }
}

/// A GPU in a line.
pub(crate) fn describe(device: &dyn Device) -> String {
    let facts = device.facts();
    let free = match device.free_bytes() {
        Ok(free) => format!("{} free", format_bytes(free)),
        Err(error) => error.to_string(),
    };
    format!(
        "{}, {} of memory, {free}, {} multiprocessors, driver {}",
        facts.name,
        format_bytes(facts.memory_bytes),
        facts.multiprocessors,
        facts.driver
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_asked_for_and_not_there_is_an_error_and_otherwise_the_cpu_serves() {
        let args = |device| ModelArgs {
            device,
            ..ModelArgs::default()
        };
        let far = choose(&args(Some(DeviceChoice::Cuda(1000))));
        let reason = far.err().expect("no machine has so many GPUs");
        assert!(reason.starts_with("--device cuda:1000: "), "{reason}");
        let cpu = choose(&args(Some(DeviceChoice::Cpu)));
        assert!(matches!(cpu, Ok(ComputeDevice::Cpu { .. })));
        assert!(choose(&args(None)).is_ok());
        let metal = DeviceChoice::Candle(CandleChoice::Metal);
        if let Err(reason) = choose(&args(Some(metal))) {
            assert!(reason.starts_with("--device metal: "), "{reason}");
        }
    }
}
