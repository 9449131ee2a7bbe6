//! Chooses where to compute.

use std::sync::Arc;

use backstop_card::{Device, open_nvidia};
use backstop_executor::{ComputeDevice, format_bytes};

use crate::args::{DeviceChoice, ModelArgs};
use crate::machine;

/// What the settings and the machine give; says so in the log.
pub(crate) fn choose(args: &ModelArgs) -> Result<ComputeDevice, String> {
    match args.device() {
        DeviceChoice::Cpu => Ok(cpu()),
        DeviceChoice::Cuda(ordinal) => match open_nvidia(ordinal) {
            Ok(device) => Ok(cuda(device)),
            Err(reason) => Err(format!("--device cuda: {reason}")),
        },
        DeviceChoice::Auto => match open_nvidia(0) {
            Ok(device) => Ok(cuda(device)),
            Err(reason) => {
                tracing::info!("computing on the CPU: {reason}");
                Ok(cpu())
            }
        },
    }
}

/// The machine's processors, and what is free of its memory.
pub(crate) fn cpu() -> ComputeDevice {
    ComputeDevice::Cpu {
        free_bytes: machine::available_memory_bytes(),
    }
}

fn cuda(device: Arc<dyn Device>) -> ComputeDevice {
    tracing::info!("computing on {}", describe(&*device));
    ComputeDevice::Cuda(device)
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
        assert!(reason.starts_with("--device cuda: "), "{reason}");
        let cpu = choose(&args(Some(DeviceChoice::Cpu)));
        assert!(matches!(cpu, Ok(ComputeDevice::Cpu { .. })));
        assert!(choose(&args(None)).is_ok());
    }
}
