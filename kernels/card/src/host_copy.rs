//! Weights that wait in the host's memory while a device's memory is given back.

use super::buffer::DeviceBuffer;
use super::device::{DeviceError, Stream};
use super::pinned::Pinned;
use super::weights::CudaWeights;

/// All weights of a model as a device had them, in pinned memory, from which they return at the pace of the bus.
pub struct HostCopy {
    /// One for each of the weights' buffers.
    buffers: Vec<Pinned>,
}

impl CudaWeights {
    /// Copies everything into the host's memory. The weights stay where they are.
    pub fn to_host(&self) -> Result<HostCopy, DeviceError> {
        let copy = |buffer: &DeviceBuffer| -> Result<Pinned, DeviceError> {
            let pinned = Pinned::new(self.device(), buffer.bytes())?;
            let (to, from) = (pinned.pointer(), buffer.pointer());
            // SAFETY: the pinned memory is at least as long as the buffer, and is left alone until the wait below.
            unsafe {
                self.device()
                    .download(Stream::Copy, to, from, buffer.bytes())?;
            }
            Ok(pinned)
        };
        // What the main stream still writes, nobody would wait for.
        self.device().synchronize(Stream::Main)?;
        let buffers: Result<Vec<Pinned>, DeviceError> = self.memory().iter().map(copy).collect();
        // Also if one of them failed: the others' copies are on their way into memory that goes.
        self.device().synchronize(Stream::Copy)?;
        Ok(HostCopy { buffers: buffers? })
    }

    /// Brings everything back into weights that were reserved in the same order. `loading` is told the bytes so far.
    ///
    /// # Panics
    ///
    /// If the copy is of other weights.
    pub fn fill_from(&self, copy: &HostCopy, loading: &dyn Fn(u64)) -> Result<(), DeviceError> {
        assert_eq!(copy.buffers.len(), self.memory().len(), "buffers");
        let mut done = 0;
        for (from, buffer) in copy.buffers.iter().zip(self.memory()) {
            assert!(from.as_slice().len() >= buffer.bytes(), "bytes of a buffer");
            // SAFETY: both have this many bytes, and neither goes before the wait.
            unsafe {
                let (to, from) = (buffer.pointer(), from.pointer());
                self.device()
                    .upload(Stream::Copy, to, from, buffer.bytes())?;
            }
            self.device().synchronize(Stream::Copy)?;
            done += buffer.bytes() as u64;
            loading(done);
        }
        Ok(())
    }
}
