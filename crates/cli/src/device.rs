//! Chooses where to compute.

use std::sync::Arc;

use backstop_card::{Device, open_nvidia};

use crate::args::{DeviceChoice, ModelArgs};
use crate::quantities::format_bytes;

/// Where to compute.
#[derive(Clone)]
pub(crate) enum Compute {
    Cpu,
    Cuda(Arc<dyn Device>),
}

impl Compute {
    /// What the settings and the machine give; says so in the log.
    pub(crate) fn choose(args: &ModelArgs) -> Result<Self, String> {
        match args.device() {
            DeviceChoice::Cpu => Ok(Self::Cpu),
            DeviceChoice::Cuda(ordinal) => match open_nvidia(ordinal) {
                Ok(device) => Ok(Self::cuda(device)),
                Err(reason) => Err(format!("--device cuda: {reason}")),
            },
            DeviceChoice::Auto => match open_nvidia(0) {
                Ok(device) => Ok(Self::cuda(device)),
                Err(reason) => {
                    tracing::info!("computing on the CPU: {reason}");
                    Ok(Self::Cpu)
                }
            },
        }
    }

    fn cuda(device: Arc<dyn Device>) -> Self {
        tracing::info!("computing on {}", describe(&*device));
        Self::Cuda(device)
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
        let far = Compute::choose(&args(Some(DeviceChoice::Cuda(1000))));
        let reason = far.err().expect("no machine has so many GPUs");
        assert!(reason.starts_with("--device cuda: "), "{reason}");
        let cpu = Compute::choose(&args(Some(DeviceChoice::Cpu)));
        assert!(matches!(cpu, Ok(Compute::Cpu)));
        assert!(Compute::choose(&args(None)).is_ok());
    }
}
