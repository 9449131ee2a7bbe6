//! Opening the device, and the stage that says what it is and what its memory can do.

use std::io;
use std::sync::Arc;

use backstop_benches::report::Table;
use backstop_benches::statistics::median;
use backstop_card::{Device, DeviceError, Event, Stream, cubins, open_nvidia};
use backstop_proof::bandwidth::MemoryTraffic;
use backstop_proof::host::{HostDevice, build_library};
use serde_json::json;

use crate::settings::DeviceKind;
use crate::stage::Record;

const MIB: usize = 1 << 20;
/// Sizes far beyond the 50 MiB of an H100's L2 cache.
const CUDA_BYTES: [usize; 3] = [512 * MIB, 2048 * MIB, 8192 * MIB];
const HOST_BYTES: [usize; 1] = [MIB];
/// Timed launches of each size; the first ones are not counted.
const LAUNCHES: usize = 15;
const WARM_UP_LAUNCHES: usize = 3;

pub(crate) fn open(kind: DeviceKind) -> Result<Arc<dyn Device>, String> {
    match kind {
        DeviceKind::Cuda => open_nvidia(0).map_err(|error| error.to_string()),
        DeviceKind::Host => {
            let library = build_library(false)?;
            let device = HostDevice::open(&library).map_err(|error| error.to_string())?;
            Ok(Arc::new(device))
        }
    }
}

/// Takes the time between pairs of events on the main stream.
pub(crate) struct Stopwatch {
    device: Arc<dyn Device>,
    pairs: Vec<(Event, Event)>,
}

impl Stopwatch {
    pub(crate) fn new(device: &Arc<dyn Device>, pairs: usize) -> Result<Self, DeviceError> {
        let pair = |_| Ok((device.create_event()?, device.create_event()?));
        Ok(Self {
            device: Arc::clone(device),
            pairs: (0..pairs).map(pair).collect::<Result<_, DeviceError>>()?,
        })
    }

    /// Microseconds that `timed` took each time; `before` runs ahead of it, untimed. Everything is
    /// queued at once, so that the device never waits for this process.
    pub(crate) fn time(
        &self,
        runs: usize,
        before: impl Fn() -> Result<(), DeviceError>,
        timed: impl Fn() -> Result<(), DeviceError>,
    ) -> Result<Vec<f64>, DeviceError> {
        let pairs = &self.pairs[..runs.min(self.pairs.len())];
        for &(begin, end) in pairs {
            before()?;
            self.device.record(begin, Stream::Main)?;
            timed()?;
            self.device.record(end, Stream::Main)?;
        }
        self.device.synchronize(Stream::Main)?;
        pairs
            .iter()
            .map(|&(begin, end)| Ok(f64::from(self.device.elapsed_ms(begin, end)?) * 1e3))
            .collect()
    }
}

pub(crate) fn run(kind: DeviceKind, record: &mut Record) -> io::Result<()> {
    let device = match open(kind) {
        Ok(device) => device,
        Err(reason) => {
            record.fail(reason);
            return Ok(());
        }
    };
    let facts = device.facts();
    record.measured(
        "device",
        json!({
            "name": facts.name,
            "multiprocessors": facts.multiprocessors,
            "memory_bytes": facts.memory_bytes,
            "driver": facts.driver,
        }),
    );
    let replaced = cubins::replaced();
    if !replaced.is_empty() {
        let names = replaced.join(", ");
        record.note(format!(
            "Kernels from elsewhere instead of those built in: {names}."
        ));
    }
    let sizes: &[usize] = match kind {
        DeviceKind::Cuda => &CUDA_BYTES,
        DeviceKind::Host => &HOST_BYTES,
    };
    if let Err(error) = measure(&device, sizes, record) {
        record.fail(error.to_string());
    }
    Ok(())
}

fn measure(
    device: &Arc<dyn Device>,
    sizes: &[usize],
    record: &mut Record,
) -> Result<(), DeviceError> {
    let stopwatch = Stopwatch::new(device, LAUNCHES + WARM_UP_LAUNCHES)?;
    let nothing = || Ok(());
    let empty = stopwatch.time(LAUNCHES, nothing, nothing)?;
    record.measured("empty_event_pair_us", json!(median(&empty)));
    let columns = ["kernel", "MiB read", "median µs", "GB/s"];
    let mut table = Table::new("Memory, reads and writes counted", &columns);
    let (mut copies, mut reads) = (0f64, 0f64);
    for &bytes in sizes {
        let traffic = MemoryTraffic::new(device, bytes)?;
        let copy = stopwatch.time(LAUNCHES + WARM_UP_LAUNCHES, nothing, || traffic.copy())?;
        let read = stopwatch.time(LAUNCHES + WARM_UP_LAUNCHES, nothing, || traffic.read())?;
        for (name, times, moved) in [
            ("copy", copy, 2 * traffic.bytes()),
            ("read", read, traffic.bytes()),
        ] {
            let microseconds = median(&times[WARM_UP_LAUNCHES..]);
            let rate = moved as f64 / microseconds / 1e3;
            let best = if name == "copy" {
                &mut copies
            } else {
                &mut reads
            };
            *best = best.max(rate);
            table.rows.push(vec![
                name.to_owned(),
                (traffic.bytes() / MIB).to_string(),
                format!("{microseconds:.1}"),
                format!("{rate:.0}"),
            ]);
        }
    }
    record.measured("copy_gb_per_second", json!(copies));
    record.measured("read_gb_per_second", json!(reads));
    record.table(table);
    Ok(())
}
