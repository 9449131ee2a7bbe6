//! Sampling's kernels on the host executor, compared with the processor's sampling.

use backstop_kernels::cuda::host::HostDevice;
use backstop_kernels::ops::sample::cuda::checks;

#[test]
fn the_device_samples_what_the_processor_does() {
    let device = HostDevice::for_tests().unwrap();
    let failures = checks::failures(&device).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
