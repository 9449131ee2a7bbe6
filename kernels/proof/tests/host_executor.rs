//! What the host executor computes, and the mistakes in kernels that it notices.
#![expect(
    unsafe_code,
    clippy::unwrap_used,
    reason = "copies and launches are outside the compiler's view; a test may panic"
)]
#![expect(
    clippy::print_stderr,
    reason = "scripts/card/sanitize_kernels reads where the sanitized library is"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use backstop_card::{Device, DeviceBuffer, DevicePointer, Grid, KernelArgs, Stream};
use backstop_kernels::{decode_f8, narrow_bf16, widen_bf16};
use backstop_proof::PoisonedBuffer;
use backstop_proof::host::{HostDevice, LIBRARY_VARIABLE, build_library_of};

/// The test kernels, compiled.
fn library(sanitize: bool) -> PathBuf {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda/host/tests");
    let kernels = ["correct.cu", "broken.cu"].map(|name| kernels.join(name));
    build_library_of(&kernels, sanitize).unwrap()
}

fn device() -> Arc<dyn Device> {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        std::env::var_os(LIBRARY_VARIABLE).map_or_else(|| library(false), PathBuf::from)
    });
    Arc::new(HostDevice::open(library).unwrap())
}

#[derive(Clone, Copy)]
#[repr(C)]
struct ProductArgs {
    a: DevicePointer,
    b: DevicePointer,
    sums: DevicePointer,
    option: i32,
    unused: i32,
}
// SAFETY: as `WarpgroupArgs` and `WarpArgs` in correct.cu.
unsafe impl KernelArgs for ProductArgs {}

#[derive(Clone, Copy)]
#[repr(C)]
struct BrokenArgs {
    input: DevicePointer,
    out: DevicePointer,
    broken: i32,
    unused: i32,
}
// SAFETY: as `Args` in broken.cu.
unsafe impl KernelArgs for BrokenArgs {}

#[derive(Clone, Copy)]
#[repr(C)]
struct CommonArgs {
    out: DevicePointer,
    counter: DevicePointer,
}
// SAFETY: as `CommonArgs` in correct.cu.
unsafe impl KernelArgs for CommonArgs {}

/// Bytes that look random, none of them NaN as E4M3.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let indices = backstop_kernels::random::random_indices(seed, len, 127);
    let signs = backstop_kernels::random::random_indices(seed + 1, len, 2);
    let codes = indices.iter().zip(signs);
    codes
        .map(|(&code, sign)| (code | sign << 7) as u8)
        .collect()
}

/// Random BF16 numbers.
fn bf16(seed: u64, len: usize) -> Vec<u16> {
    let values = backstop_kernels::random::random_values(seed, len, 1.0);
    values.into_iter().map(narrow_bf16).collect()
}

/// Where the 16-byte chunk of a row of a panel stands, and byte `byte` in it.
fn in_panel(row: usize, byte: usize) -> usize {
    row * 128 + ((byte / 16) ^ (row % 8)) * 16 + byte % 16
}

/// `rows` rows of consecutive numbers as panels.
fn panels(rows: usize, row_bytes: usize, matrix: &[u8]) -> Vec<u8> {
    let mut panels = vec![0; matrix.len()];
    for row in 0..rows {
        for byte in 0..row_bytes {
            let place = byte / 128 * rows * 128 + in_panel(row, byte % 128);
            panels[place] = matrix[row * row_bytes + byte];
        }
    }
    panels
}

/// a * b^T in f32 with increasing depth.
fn product(a: &[f32], b: &[f32], depth: usize) -> Vec<f32> {
    let rows = a.chunks(depth);
    rows.flat_map(|row| {
        b.chunks(depth).map(move |column| {
            let products = row.iter().zip(column).map(|(a, b)| a * b);
            products.fold(0.0f32, |sum, product| sum + product)
        })
    })
    .collect()
}

fn warpgroup_product(kernel: &'static str, columns: usize, a: &[u8], b: &[u8]) -> Vec<f32> {
    let device = device();
    let row_bytes = a.len() / 64;
    let a = DeviceBuffer::from_slice(&device, &panels(64, row_bytes, a)).unwrap();
    let b = DeviceBuffer::from_slice(&device, &panels(columns, row_bytes, b)).unwrap();
    let sums = PoisonedBuffer::new(&device, 64 * columns * 4).unwrap();
    let args = ProductArgs {
        a: a.pointer(),
        b: b.pointer(),
        sums: sums.pointer(),
        option: (row_bytes / 128) as i32,
        unused: 0,
    };
    let grid = Grid::line(1, 160).shared(2 * (64 + columns) * 128 + 32);
    // SAFETY: the arguments are the kernel's, and the buffers have the sizes that it expects.
    unsafe { device.launch(Stream::Main, kernel, grid, &args).unwrap() };
    sums.read().unwrap()
}

const PANELS: usize = 5;

#[test]
fn warpgroups_multiply_e4m3() {
    for (kernel, columns) in [
        ("test_warpgroup_e4m3_8", 8),
        ("test_warpgroup_e4m3_16", 16),
        ("test_warpgroup_e4m3_32", 32),
        ("test_warpgroup_e4m3_64", 64),
        ("test_warpgroup_e4m3_128", 128),
    ] {
        let depth = 128 * PANELS;
        let (a, b) = (bytes(1, 64 * depth), bytes(3, columns * depth));
        let decode = |codes: &[u8]| {
            codes
                .iter()
                .map(|&code| decode_f8(code))
                .collect::<Vec<_>>()
        };
        let expected = product(&decode(&a), &decode(&b), depth);
        assert_eq!(
            warpgroup_product(kernel, columns, &a, &b),
            expected,
            "{columns}"
        );
    }
}

#[test]
fn warpgroups_multiply_bf16() {
    for (kernel, columns) in [
        ("test_warpgroup_bf16_8", 8),
        ("test_warpgroup_bf16_16", 16),
        ("test_warpgroup_bf16_32", 32),
        ("test_warpgroup_bf16_64", 64),
        ("test_warpgroup_bf16_128", 128),
    ] {
        let depth = 64 * PANELS;
        let (a, b) = (bf16(1, 64 * depth), bf16(3, columns * depth));
        let widen = |values: &[u16]| values.iter().map(|&it| widen_bf16(it)).collect::<Vec<_>>();
        let stored = |values: &[u16]| {
            values
                .iter()
                .flat_map(|it| it.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let expected = product(&widen(&a), &widen(&b), depth);
        let actual = warpgroup_product(kernel, columns, &stored(&a), &stored(&b));
        assert_eq!(actual, expected, "{columns}");
    }
}

#[test]
fn warps_multiply_and_load_matrices() {
    let device = device();
    let (a, b) = (bf16(1, 256), bf16(2, 128));
    let widen = |values: &[u16]| values.iter().map(|&it| widen_bf16(it)).collect::<Vec<_>>();
    let expected = product(&widen(&a), &widen(&b), 16);
    for transposed in [false, true] {
        let mut stored = b.clone();
        if transposed {
            for (index, value) in stored.iter_mut().enumerate() {
                *value = b[index % 8 * 16 + index / 8];
            }
        }
        let a = DeviceBuffer::from_slice(&device, &a).unwrap();
        let b = DeviceBuffer::from_slice(&device, &stored).unwrap();
        let d = PoisonedBuffer::new(&device, 512).unwrap();
        let args = ProductArgs {
            a: a.pointer(),
            b: b.pointer(),
            sums: d.pointer(),
            option: i32::from(transposed),
            unused: 0,
        };
        let grid = Grid::line(1, 32).shared(1024);
        // SAFETY: the arguments are the kernel's.
        unsafe {
            let kernel = "test_warp_product";
            device.launch(Stream::Main, kernel, grid, &args).unwrap();
        }
        assert_eq!(d.read::<f32>().unwrap(), expected, "{transposed}");
    }
}

#[test]
fn lanes_blocks_and_atomics_work_together() {
    let device = device();
    let out = PoisonedBuffer::new(&device, 100 * 128 * 4).unwrap();
    let counter = DeviceBuffer::from_slice(&device, &[0u32]).unwrap();
    let args = CommonArgs {
        out: out.pointer(),
        counter: counter.pointer(),
    };
    let grid = Grid::line(100, 128).shared(512);
    // SAFETY: the arguments are the kernel's.
    unsafe {
        device
            .launch(Stream::Main, "test_lanes", grid, &args)
            .unwrap()
    };
    assert_eq!(out.read::<u32>().unwrap(), vec![0; 100 * 128]);
    assert_eq!(counter.read::<u32>().unwrap(), [12_800]);
}

/// Runs a kernel of broken.cu: its output, or the error.
fn run(
    kernel: &'static str,
    broken: i32,
    threads: usize,
    shared: usize,
) -> Result<Vec<u32>, String> {
    let device = device();
    let numbers: Vec<u32> = (0..64).collect();
    let input = DeviceBuffer::from_slice(&device, &numbers).unwrap();
    let out = PoisonedBuffer::new(&device, 4 * threads).unwrap();
    let args = BrokenArgs {
        input: input.pointer(),
        out: out.pointer(),
        broken,
        unused: 0,
    };
    let grid = Grid::line(1, threads as u32).shared(shared);
    // SAFETY: the arguments are the kernel's; mistakes stay within the executor's memory.
    let launched = unsafe { device.launch(Stream::Main, kernel, grid, &args) };
    launched.map_err(|error| error.to_string())?;
    Ok(out.read().unwrap())
}

/// The kernel works, and with the mistake it fails with an error that says all of these.
fn fails(kernel: &'static str, broken: i32, threads: usize, shared: usize, says: &[&str]) {
    run(kernel, 0, threads, shared).unwrap();
    let error = run(kernel, broken, threads, shared).unwrap_err();
    for part in says.iter().chain(&[kernel, "block (0, 0, 0)"]) {
        assert!(error.contains(part), "{error} should say: {part}");
    }
}

/// The kernel gives the right numbers, and with the mistake others.
fn differs(kernel: &'static str, broken: i32, shared: usize, right: &[u32]) {
    assert_eq!(run(kernel, 0, right.len(), shared).unwrap(), right);
    assert_ne!(run(kernel, broken, right.len(), shared).unwrap(), right);
}

#[test]
fn a_dropped_barrier_shows() {
    let right: Vec<u32> = (0..64).rev().collect();
    differs("test_barrier_dropped", 1, 256, &right);
}

#[test]
fn lanes_and_threads_that_do_not_come_are_errors() {
    let deadlock = ["deadlock", "__shfl_xor_sync", "__syncthreads"];
    fails("test_divergent_shuffle", 1, 64, 0, &deadlock);
    fails("test_lane_ends", 1, 64, 0, &["__shfl_xor_sync", "end"]);
    fails("test_thread_ends", 1, 64, 0, &["__syncthreads", "end"]);
    fails(
        "test_divergent_barrier",
        1,
        64,
        0,
        &["named_barrier 1", "lanes of warp"],
    );
}

#[test]
fn shared_memory_has_an_end() {
    fails(
        "test_address_behind",
        1,
        64,
        256,
        &["load_matrices", "256 bytes of shared memory"],
    );
    run("test_write_behind", 0, 64, 256).unwrap();
    let error = run("test_write_behind", 1, 64, 256).unwrap_err();
    assert!(
        error.contains("wrote behind the block's 256 bytes"),
        "{error}"
    );
}

#[test]
fn launches_are_checked() {
    let says = |result: Result<Vec<u32>, String>, part: &str| {
        let error = result.unwrap_err();
        assert!(error.contains(part), "{error} should say: {part}");
    };
    says(
        run("test_lane_ends", 0, 96, 0),
        "96 threads, but the kernel is for 64",
    );
    says(
        run("test_lane_ends", 0, 64, 227 * 1024 + 16),
        "232464 bytes of shared memory",
    );
    says(
        run("test_no_such_kernel", 0, 64, 0),
        "no kernel of this name",
    );
}

#[test]
fn misused_bulk_copies_are_errors() {
    let kernel = "test_bulk_copy";
    let right: Vec<u32> = (0..64).collect();
    assert_eq!(run(kernel, 0, 64, 264).unwrap(), right);
    for (mistake, says) in [
        (
            2,
            "deadlock; 64 threads (0-63) wait in mbarrier at 0x500, parity 0",
        ),
        (3, "is not initialised"),
        (4, "no mbarrier_init_fence"),
        (5, "not aligned to 16 bytes"),
        (6, "bulk_copy of 248 bytes"),
        (7, "more than the 1 expected arrivals"),
        (8, "before its bulk copies were done"),
        (9, "was overwritten"),
    ] {
        fails(kernel, mistake, 64, 264, &[says]);
    }
}

#[test]
fn a_missing_expectation_shows() {
    let error = run("test_bulk_copy", 1, 64, 264).unwrap_err();
    assert!(
        error.contains("bulk copies") || error.contains("more expected than copied"),
        "{error}"
    );
}

#[test]
fn misused_async_copies_show() {
    let right: Vec<u32> = (0..64).collect();
    differs("test_async_copy", 3, 256, &right);
    fails(
        "test_async_copy",
        2,
        64,
        256,
        &["async_copy16", "not aligned"],
    );
}

#[test]
fn misused_warpgroup_products_show() {
    let kernel = "test_warpgroup";
    let shared = 72 * 128;
    let right = [32; 128];
    for mistake in [1, 2, 8] {
        // Products may be done early or late, so not each run shows each mistake.
        assert_eq!(run(kernel, 0, 128, shared).unwrap(), right);
        let wrong = run(kernel, mistake, 128, shared);
        assert_ne!(wrong, Ok(right.to_vec()), "{mistake}");
    }
    for (mistake, says) in [
        (3, "without warpgroup_arrive"),
        (4, "without warpgroup_wait"),
        (5, "only the 128-byte swizzle"),
        (6, "differs from that of another thread"),
        (7, "behind the block's"),
    ] {
        fails(kernel, mistake, 128, shared, &[says]);
    }
}

/// Makes the library with which `scripts/card/sanitize_kernels` runs these tests again.
#[test]
#[ignore = "part of scripts/card/sanitize_kernels"]
fn build_the_sanitized_library() {
    eprintln!("sanitized library: {}", library(true).display());
}

/// What only sanitizers notice; with them, these end the process.
mod for_sanitizers {
    use super::run;

    #[test]
    #[ignore = "part of scripts/card/sanitize_kernels, which expects it to fail"]
    fn read_behind_shared_memory() {
        run("test_read_behind", 1, 64, 256).unwrap();
    }

    #[test]
    #[ignore = "part of scripts/card/sanitize_kernels, which expects it to fail"]
    fn read_behind_device_memory() {
        run("test_read_behind", 2, 64, 256).unwrap();
    }

    #[test]
    #[ignore = "part of scripts/card/sanitize_kernels, which expects it to fail"]
    fn copy_from_behind_device_memory() {
        run("test_read_behind", 3, 64, 256).unwrap();
    }

    #[test]
    #[ignore = "part of scripts/card/sanitize_kernels, which expects it to fail"]
    fn misaligned_vector() {
        run("test_read_behind", 4, 64, 256).unwrap();
    }
}
