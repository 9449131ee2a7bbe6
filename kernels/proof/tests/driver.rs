//! What is asked of NVIDIA's driver, with a library in its place that answers without a card.
//!
//! The driver is loaded once in a process, so this program starts itself again for each machine
//! that the library pretends to be.
#![allow(unsafe_code, reason = "device memory is outside the compiler's view")]
#![allow(clippy::print_stdout, reason = "what is printed is compared")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backstop_card::cubins::{CUBINS, KernelFacts};
use backstop_card::{Device, DeviceBuffer, DeviceError, Grid, Stream, open_nvidia};

/// Tells the started program which card to open.
const ORDINAL: &str = "FAKE_DRIVER_ORDINAL";

fn main() {
    if let Ok(ordinal) = env::var(ORDINAL) {
        return match open_nvidia(ordinal.parse().expect("a number")) {
            Ok(device) => use_device(device).expect("the library does as it is told"),
            Err(reason) => println!("{reason}"),
        };
    }
    let libraries = compile_library();
    for (machine, ordinal, expected) in [
        (
            "old",
            0,
            "the NVIDIA driver is for CUDA 12.4; Backstop needs one for CUDA 13.0, release 580 or \
             newer\n",
        ),
        (
            "no card",
            0,
            "the NVIDIA driver finds no GPU: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is \
             detected)\n",
        ),
        (
            "H100",
            1,
            "there is no GPU 1: the NVIDIA driver finds 1, numbered from 0\n",
        ),
        (
            "A100",
            0,
            "GPU 0 (NVIDIA A100, sm_80) cannot run Backstop's kernels, which are for sm_90 (H100, H200)\n",
        ),
    ] {
        assert_eq!(run(&libraries, machine, ordinal), expected, "{machine}");
    }
    let transcript = run(&libraries, "H100", 0);
    assert_eq!(transcript, expected_transcript(), "{transcript}");
}

/// Makes `libcuda.so.1` in a directory of its own.
fn compile_library() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("driver");
    std::fs::create_dir_all(&directory).expect("the target directory is writable");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/driver/libcuda.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([directory.join("libcuda.so"), source])
        .status();
    assert!(compiled.expect("there is a C compiler").success());
    directory
}

/// Starts this program on a machine; what it prints.
fn run(libraries: &Path, machine: &str, ordinal: u32) -> String {
    let output = Command::new(env::current_exe().expect("this program has a path"))
        .env("LD_LIBRARY_PATH", libraries)
        .env("FAKE_DRIVER", machine)
        .env(ORDINAL, ordinal.to_string())
        .output()
        .expect("this program can start itself");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{machine}: {errors}");
    String::from_utf8(output.stdout).expect("what it prints is text")
}

/// Some kernel.
fn kernel() -> KernelFacts {
    let kernels = CUBINS
        .iter()
        .flat_map(|cubin| cubin.kernels().expect("it is whole"));
    kernels.into_iter().next().expect("there are kernels")
}

/// Uses everything that a device offers, and prints what cannot be asserted here.
fn use_device(device: Arc<dyn Device>) -> Result<(), DeviceError> {
    let facts = device.facts();
    println!("{}, {} multiprocessors", facts.name, facts.multiprocessors);
    assert_eq!(facts.memory_bytes, 80 << 30);
    assert_eq!(device.free_bytes()?, 79 << 30);
    memory(&device)?;
    launches(device.as_ref())?;
    recording(device.as_ref())?;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| device.synchronize(Stream::Side));
        other.join().expect("it does not panic")
    })?;
    failing(device.as_ref());
    Ok(())
}

fn memory(device: &Arc<dyn Device>) -> Result<(), DeviceError> {
    for count in [1, 100] {
        let values: Vec<u32> = (0..count).collect();
        let buffer = DeviceBuffer::from_slice(device, &values)?;
        assert_eq!(buffer.pointer().0 % 1024, 0);
        assert_eq!(buffer.read::<u32>()?, values);
    }
    let filled = DeviceBuffer::filled(device, 7, 5)?;
    assert_eq!(filled.read::<u8>()?, [7; 5]);
    let empty = DeviceBuffer::from_slice::<u32>(device, &[])?;
    assert_eq!(empty.read::<u32>()?, []);
    drop(DeviceBuffer::filled(device, 7, 0)?);
    let pinned = device.allocate_pinned(64)?;
    // SAFETY: the memory is as long, and goes back once.
    unsafe {
        assert!((0..64).all(|at| *pinned.add(at) == 0));
        device.free_pinned(pinned, 64);
    }
    assert!(device.allocate(0).is_err_and(|error| !error.fatal));
    Ok(())
}

fn launches(device: &dyn Device) -> Result<(), DeviceError> {
    let kernel = kernel();
    let name: &'static str = kernel.name.leak();
    let arguments: Vec<u8> = (1..=kernel.argument_bytes).map(|byte| byte as u8).collect();
    let grid = Grid::new([4, 3, 2], kernel.threads);
    // SAFETY: no kernel runs.
    unsafe {
        device.launch_bytes(Stream::Side, name, grid.shared(5000), &arguments)?;
        let wrong = device.launch_bytes(Stream::Main, name, grid, &arguments[1..]);
        assert!(wrong.is_err_and(|error| error.reason.contains("bytes of arguments")));
        let grid = Grid::line(1, kernel.threads + 32);
        assert!(
            device
                .launch_bytes(Stream::Main, name, grid, &arguments)
                .is_err()
        );
        assert!(
            device
                .launch_bytes(Stream::Main, "unknown", grid, &[])
                .is_err()
        );
    }
    Ok(())
}

/// A recording in which the side stream takes part.
fn recording(device: &dyn Device) -> Result<(), DeviceError> {
    let (fork, join) = (device.create_event()?, device.create_event()?);
    let memory = device.allocate(16)?;
    device.begin_capture()?;
    // SAFETY: the memory is this long, and is freed once.
    unsafe {
        device.fill(Stream::Main, memory, 1, 16)?;
        device.record(fork, Stream::Main)?;
        device.wait_event(Stream::Side, fork)?;
        device.fill(Stream::Side, memory, 2, 8)?;
        device.record(join, Stream::Side)?;
        device.wait_event(Stream::Main, join)?;
        let graph = device.end_capture()?;
        device.replay(graph)?;
        device.replay(graph)?;
        device.free(memory);
    }
    assert!(device.end_capture().is_err(), "nothing is being recorded");
    device.begin_capture()?;
    assert!(device.allocate(16).is_err(), "no memory while recording");
    assert!(device.end_capture().is_err(), "the recording is spoilt");
    Ok(())
}

/// A kernel that goes wrong spoils the card.
fn failing(device: &dyn Device) {
    let kernel = kernel();
    let arguments = vec![0; kernel.argument_bytes];
    let grid = Grid::new([7, 7, 7], kernel.threads);
    // SAFETY: no kernel runs.
    unsafe {
        let launched = device.launch_bytes(Stream::Main, kernel.name.leak(), grid, &arguments);
        assert_eq!(launched, Ok(()));
    }
    let error = device
        .synchronize(Stream::Main)
        .expect_err("the kernel failed");
    println!("{error}; fatal: {}", error.fatal);
}

/// What opening, using and closing a card prints, with the calls of the driver in between.
fn expected_transcript() -> String {
    let KernelFacts { name, threads, .. } = kernel();
    format!(
        "\
NVIDIA H100, 132 multiprocessors
driver: 0: upload 4
driver: 0: download 4
driver: 0: upload 400
driver: 0: download 400
driver: 0: fill 5
driver: 0: download 5
driver: 1: launch {name} [4, 3, 2] * {threads}, 5000 bytes, arguments 1 2
driver: record on 0: fill 16
driver: record on 1: fill 8
driver: 0: graph of 2 operations
driver: 0: graph of 2 operations
driver: 0: launch {name} [7, 7, 7] * {threads}, 0 bytes, arguments 0 0
waiting for Main: CUDA_ERROR_LAUNCH_FAILED (text of the error); fatal: true
driver: released, 0 handles left
"
    )
}
