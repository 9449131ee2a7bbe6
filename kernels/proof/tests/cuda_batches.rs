//! Batches of all sizes on the host executor: the same rows in each, and large cases whose data the
//! device makes.

use backstop_proof::host::HostDevice;
use backstop_proof::{catalog, invariance};

#[test]
fn rows_have_the_same_bits_in_batches_for_every_token_tile() {
    let device = HostDevice::for_tests().unwrap();
    assert_eq!(invariance::failures(&device).unwrap(), Vec::<String>::new());
}

#[test]
fn what_the_device_makes_of_large_cases_runs() {
    let device = HostDevice::for_tests().unwrap();
    let mut ran = 0;
    for kernel in catalog::ALL {
        let specs = (kernel.cases)();
        let small = specs.iter().filter(|spec| {
            ["BF16 [2048, 4096], 1 tokens", "8191, 1)]"]
                .iter()
                .any(|end| spec.label.ends_with(end))
        });
        for work in small.filter_map(|spec| spec.on_device(&device)) {
            let work = work.unwrap();
            assert!(work.cost.multiply_adds > 0 && work.rows > 0);
            (work.launch)().unwrap();
            (work.launch)().unwrap();
            ran += 1;
        }
    }
    assert!(ran >= 2, "{ran} ran");
}
