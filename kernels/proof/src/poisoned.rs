//! Memory for outputs that shows what was not written, and what was written beyond it.

use std::sync::Arc;

use backstop_card::{Device, DeviceBuffer, DeviceError, DevicePointer, Plain};

/// Bytes behind a [`PoisonedBuffer`] that nobody may write.
const CANARY_BYTES: usize = 256;
/// What poisoned memory and canaries hold: NaN in every floating-point format.
const POISON: u8 = 0xff;

/// An output in tests: full of NaN, so that an element nobody wrote shows, and with bytes behind
/// it that must stay as they are.
pub struct PoisonedBuffer {
    memory: DeviceBuffer,
    bytes: usize,
}

impl PoisonedBuffer {
    /// Poisoned memory.
    pub fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, DeviceError> {
        let memory = DeviceBuffer::filled(device, POISON, bytes + CANARY_BYTES)?;
        Ok(Self { memory, bytes })
    }

    /// Where it is.
    pub fn pointer(&self) -> DevicePointer {
        self.memory.pointer()
    }

    /// The contents; an error if anything was written behind the end.
    pub fn read<T: Plain>(&self) -> Result<Vec<T>, DeviceError> {
        let all = self.memory.read::<u8>()?;
        if all[self.bytes..].iter().any(|&byte| byte != POISON) {
            return Err(DeviceError {
                attempt: "reading an output".into(),
                reason: "a kernel wrote behind its end".into(),
                fatal: false,
            });
        }
        let values = all[..self.bytes].chunks_exact(size_of::<T>());
        // SAFETY: every bit pattern of `T` is a value, and each chunk has its size.
        Ok(values
            .map(|bytes| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
            .collect())
    }
}
