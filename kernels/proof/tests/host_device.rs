//! The host executor as a device: memory, events, and graphs that several streams take part in.
#![expect(
    unsafe_code,
    clippy::unwrap_used,
    reason = "copies and launches are outside the compiler's view; a test may panic"
)]

use std::sync::Arc;

use backstop_card::{Device, DeviceBuffer, DeviceError, Stream};
use backstop_proof::host::HostDevice;

fn device() -> Arc<dyn Device> {
    HostDevice::for_tests().unwrap()
}

/// Queues that all bytes of the buffer are set.
fn fill(device: &Arc<dyn Device>, stream: Stream, buffer: &DeviceBuffer, byte: u8) {
    // SAFETY: the range is the buffer.
    unsafe {
        let to = buffer.pointer();
        device.fill(stream, to, byte, buffer.bytes()).unwrap();
    }
}

/// Queues a copy between buffers of the same length.
fn copy(device: &Arc<dyn Device>, stream: Stream, to: &DeviceBuffer, from: &DeviceBuffer) {
    let from = from.pointer().0 as *const u8;
    // SAFETY: the host executor's memory is the host's, and both buffers live as long as the graph.
    unsafe {
        device
            .upload(stream, to.pointer(), from, to.bytes())
            .unwrap();
    }
}

fn says<T: std::fmt::Debug>(result: Result<T, DeviceError>, part: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(part), "{error} should say: {part}");
}

#[test]
fn memory_is_aligned_poisoned_and_counted() {
    let device = device();
    let before = device.free_bytes().unwrap();
    let buffer = DeviceBuffer::new(&device, 5000).unwrap();
    assert_eq!(buffer.pointer().0 % 1024, 0);
    assert_eq!(buffer.read::<u8>().unwrap(), vec![0xff; 5000]);
    assert_eq!(device.free_bytes().unwrap(), before - 5000);
    drop(buffer);
    assert_eq!(device.free_bytes().unwrap(), before);
    says(device.allocate(0), "no bytes");
    says(device.allocate(1 << 40), "are left");
}

#[test]
fn copies_stay_within_one_allocation() {
    let device = device();
    let buffer = DeviceBuffer::new(&device, 100).unwrap();
    let mut host = [0u8; 128];
    let (to, from) = (host.as_mut_ptr(), host.as_ptr());
    let pointer = buffer.pointer();
    let part = "not in one allocation";
    // SAFETY: these are refused.
    unsafe {
        says(device.upload(Stream::Main, pointer, from, 101), part);
        says(device.fill(Stream::Main, pointer.offset(1), 0, 100), part);
        says(
            device.download(Stream::Main, to, pointer.offset(101), 0),
            part,
        );
    }
    fill(&device, Stream::Copy, &buffer, 7);
    assert_eq!(buffer.read::<u8>().unwrap(), [7; 100]);
}

#[test]
fn captured_work_is_done_at_each_replay() {
    let device = device();
    let buffer = DeviceBuffer::filled(&device, 1, 16).unwrap();
    device.begin_capture().unwrap();
    fill(&device, Stream::Main, &buffer, 2);
    says(device.synchronize(Stream::Main), "being captured");
    let graph = device.end_capture().unwrap();
    assert_eq!(buffer.read::<u8>().unwrap(), [1; 16]);
    for _ in 0..2 {
        device.replay(graph).unwrap();
        assert_eq!(buffer.read::<u8>().unwrap(), [2; 16]);
        fill(&device, Stream::Main, &buffer, 3);
    }
}

/// Main fills `a`, the side stream copies it to `b`, and the main stream copies that to `c`;
/// without the first wait of the side stream if not `ordered`.
fn three_steps(device: &Arc<dyn Device>, ordered: bool) -> Vec<Vec<u8>> {
    let [a, b, c] = [1, 2, 3].map(|byte| DeviceBuffer::filled(device, byte, 4).unwrap());
    let (begun, filled, copied) = (
        device.create_event().unwrap(),
        device.create_event().unwrap(),
        device.create_event().unwrap(),
    );
    device.begin_capture().unwrap();
    device.record(begun, Stream::Main).unwrap();
    fill(device, Stream::Main, &a, 9);
    device.record(filled, Stream::Main).unwrap();
    let awaited = if ordered { filled } else { begun };
    device.wait_event(Stream::Side, awaited).unwrap();
    copy(device, Stream::Side, &b, &a);
    device.record(copied, Stream::Side).unwrap();
    device.wait_event(Stream::Main, copied).unwrap();
    copy(device, Stream::Main, &c, &b);
    let graph = device.end_capture().unwrap();
    let replay = |_| {
        fill(device, Stream::Main, &a, 1);
        device.replay(graph).unwrap();
        c.read().unwrap()
    };
    (0..20).map(replay).collect()
}

#[test]
fn graphs_keep_the_order_that_events_demand_and_no_other() {
    let device = device();
    assert_eq!(three_steps(&device, true), vec![vec![9; 4]; 20]);
    let results = three_steps(&device, false);
    assert!(results.contains(&vec![9; 4]) && results.contains(&vec![1; 4]));
}

#[test]
fn events_know_where_they_were_recorded() {
    let device = device();
    let buffer = DeviceBuffer::filled(&device, 1, 16).unwrap();
    let (outside, inside) = (
        device.create_event().unwrap(),
        device.create_event().unwrap(),
    );
    says(device.wait_host(outside), "never recorded");
    device.record(outside, Stream::Main).unwrap();
    device.wait_host(outside).unwrap();

    device.begin_capture().unwrap();
    says(device.begin_capture(), "one already");
    says(device.wait_event(Stream::Main, outside), "outside");
    // Streams that do not take part go on as usual.
    device.wait_event(Stream::Copy, outside).unwrap();
    fill(&device, Stream::Copy, &buffer, 4);
    assert_eq!(bytes_of(&buffer), [4; 16]);
    device.record(inside, Stream::Main).unwrap();
    device.wait_event(Stream::Side, inside).unwrap();
    fill(&device, Stream::Side, &buffer, 5);
    says(device.end_capture(), "has not waited");
    says(device.end_capture(), "none");
    says(device.wait_event(Stream::Main, inside), "another capture");
    says(device.elapsed_ms(outside, inside), "in a capture");
    assert_eq!(buffer.read::<u8>().unwrap(), [4; 16]);
}

/// The contents, read beside the main stream.
fn bytes_of(buffer: &DeviceBuffer) -> Vec<u8> {
    let from = buffer.pointer().0 as *const u8;
    // SAFETY: the host executor's memory is the host's, and nothing writes to it now.
    unsafe { std::slice::from_raw_parts(from, buffer.bytes()).to_vec() }
}
