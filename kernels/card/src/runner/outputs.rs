//! Brings sampled tokens back.

use std::sync::Arc;

use backstop_types::SampledToken;

use super::{STEPS_IN_FLIGHT, Ticket};
use crate::buffer::Plain;
use crate::device::{Device, DeviceError, Event, Stream};
use crate::ops::sample::{SampleWorkspace, SampledLogprobs, SampledRow};
use crate::pinned::Pinned;

/// What steps brought back; may be read by another thread than the runner's.
pub struct Outputs {
    device: Arc<dyn Device>,
    slots: Vec<Slot>,
}

/// Memory of one step on its way.
struct Slot {
    sampled: Pinned,
    logprobs: Pinned,
    done: Event,
}

impl Outputs {
    pub(super) fn new(device: &Arc<dyn Device>, rows: usize) -> Result<Self, DeviceError> {
        let slot = |_| {
            Ok(Slot {
                sampled: Pinned::new(device, rows * size_of::<SampledRow>())?,
                logprobs: Pinned::new(device, rows * size_of::<SampledLogprobs>())?,
                done: device.create_event()?,
            })
        };
        let slots = (0..STEPS_IN_FLIGHT).map(slot);
        Ok(Self {
            device: Arc::clone(device),
            slots: slots.collect::<Result<_, DeviceError>>()?,
        })
    }

    /// Queues the copies of a step's `rows` samples.
    pub(super) fn fetch(
        &self,
        index: usize,
        rows: usize,
        logprobs: bool,
        sampler: &SampleWorkspace,
    ) -> Result<Ticket, DeviceError> {
        let slot = &self.slots[index];
        let (device, stream) = (&self.device, Stream::Main);
        // SAFETY: both sides have room for the rows, and nobody reads them before the event.
        unsafe {
            let bytes = rows * size_of::<SampledRow>();
            device.download(
                stream,
                slot.sampled.pointer(),
                sampler.sampled().pointer(),
                bytes,
            )?;
            if logprobs {
                let bytes = rows * size_of::<SampledLogprobs>();
                device.download(
                    stream,
                    slot.logprobs.pointer(),
                    sampler.logprobs().pointer(),
                    bytes,
                )?;
            }
        }
        device.record(slot.done, stream)?;
        Ok(Ticket {
            index,
            rows,
            logprobs,
        })
    }

    /// Waits for a step. For each of its rows the token, `None` where the logits were unusable;
    /// `wants_logprobs` says which rows asked for log-probabilities.
    pub fn wait(
        &self,
        ticket: Ticket,
        wants_logprobs: impl Fn(usize) -> bool,
    ) -> Result<Vec<Option<SampledToken>>, DeviceError> {
        let slot = &self.slots[ticket.index];
        self.device.wait_host(slot.done)?;
        let decode = |row: usize| {
            let sampled: SampledRow = element(slot.sampled.as_slice(), row);
            let wanted = ticket.logprobs && wants_logprobs(row);
            let logprobs =
                wanted.then(|| element::<SampledLogprobs>(slot.logprobs.as_slice(), row));
            sampled.decode(logprobs.as_ref())
        };
        Ok((0..ticket.rows).map(decode).collect())
    }
}

fn element<T: Plain>(bytes: &[u8], index: usize) -> T {
    let bytes = &bytes[index * size_of::<T>()..][..size_of::<T>()];
    // SAFETY: every bit pattern is a value, and the slice has the type's size.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
