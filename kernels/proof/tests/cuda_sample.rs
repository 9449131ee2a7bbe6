//! Sampling's kernels on the host executor, compared with the processor's sampling.

use backstop_proof::host::HostDevice;
use backstop_proof::ops::sample;

#[test]
fn the_device_samples_what_the_processor_does() {
    let device = HostDevice::for_tests().unwrap();
    let failures = sample::failures(&device).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
