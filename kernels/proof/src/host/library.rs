//! Compiles the kernels for the processor.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Environment variable that names a library to test instead of compiling one.
pub const LIBRARY_VARIABLE: &str = "BACKSTOP_HOST_LIBRARY";

/// Where the kernels are.
const KERNELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../cuda");
/// Compilers at work at the same time.
const JOBS: usize = 2;
/// Kernels look at the same bytes as different types, and no product may be fused with a sum unless
/// the kernel says so.
const FLAGS: &[&str] = &[
    "-std=c++17",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
];
const FAST: &[&str] = &["-O2"];
const SANITIZED: &[&str] = &[
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
];

/// The library of all kernels for [`HostDevice::open`](super::HostDevice::open), with or without
/// the address and undefined-behaviour sanitizers; compiled unless that has been done.
pub fn build_library(sanitize: bool) -> Result<PathBuf, String> {
    build_library_of(&sources(Path::new(KERNELS), "cu")?, sanitize)
}

/// The same of these kernels only.
pub fn build_library_of(kernels: &[PathBuf], sanitize: bool) -> Result<PathBuf, String> {
    let executor = Path::new(KERNELS).join("host");
    let mut sources_of_all = sources(&executor, "cpp")?;
    sources_of_all.extend_from_slice(kernels);
    let build = Build::new(sanitize)?;
    let objects: Vec<PathBuf> = sources_of_all
        .iter()
        .map(|source| build.object(source))
        .collect::<Result<_, _>>()?;
    let library = build
        .directory
        .join(format!("libbackstop_host-{:016x}.so", hash_of(&objects)));
    let lock = build.directory.join("lock");
    let lock = File::create(&lock).map_err(|error| about(&lock, &error))?;
    lock.lock().map_err(|error| error.to_string())?;
    if library.exists() {
        return Ok(library);
    }
    build.compile_all(&sources_of_all, &objects)?;
    build.link(&objects, &library)?;
    Ok(library)
}

struct Build {
    compiler: OsString,
    flags: Vec<&'static str>,
    directory: PathBuf,
    /// Of the compiler, its flags and all headers.
    key: u64,
}

impl Build {
    fn new(sanitize: bool) -> Result<Self, String> {
        let compiler = std::env::var_os("CXX").unwrap_or_else(|| "g++".into());
        let mut flags = FLAGS.to_vec();
        flags.extend(if sanitize { SANITIZED } else { FAST });
        let directory = directory();
        fs::create_dir_all(&directory).map_err(|error| about(&directory, &error))?;
        let mut hasher = DefaultHasher::new();
        (compiler_version(&compiler)?, &compiler, &flags).hash(&mut hasher);
        for (place, extension) in [("", "cuh"), ("host", "h")] {
            for header in sources(&Path::new(KERNELS).join(place), extension)? {
                (header.file_name(), read(&header)?).hash(&mut hasher);
            }
        }
        Ok(Self {
            compiler,
            flags,
            directory,
            key: hasher.finish(),
        })
    }

    /// Where the object file of this source goes.
    fn object(&self, source: &Path) -> Result<PathBuf, String> {
        let hash = hash_of(&(self.key, source, read(source)?));
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        Ok(self.directory.join(format!("{stem}-{hash:016x}.o")))
    }

    fn compile_all(&self, sources: &[PathBuf], objects: &[PathBuf]) -> Result<(), String> {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((source, object)) = sources.get(index).zip(objects.get(index)) else {
                    return Ok(());
                };
                if !object.exists() {
                    let arguments = [
                        "-x".as_ref(),
                        "c++".as_ref(),
                        "-c".as_ref(),
                        source.as_os_str(),
                    ];
                    self.run(&arguments, object)?;
                }
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..JOBS).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                let result = worker.join();
                result.unwrap_or_else(|_| Err("compiling panicked".into()))
            })
        })
    }

    fn link(&self, objects: &[PathBuf], library: &Path) -> Result<(), String> {
        let mut arguments = vec!["-shared".as_ref()];
        arguments.extend(objects.iter().map(|object| object.as_os_str()));
        self.run(&arguments, library)
    }

    /// Runs the compiler; the output appears whole or not at all.
    fn run(&self, arguments: &[&std::ffi::OsStr], output: &Path) -> Result<(), String> {
        let unfinished = output.with_extension("unfinished");
        let mut command = Command::new(&self.compiler);
        command.args(&self.flags).args(arguments);
        command.arg("-o").arg(&unfinished);
        let done = command
            .output()
            .map_err(|error| missing(&self.compiler, &error))?;
        let messages = String::from_utf8_lossy(&done.stderr);
        if !done.status.success() {
            return Err(format!("{command:?} failed:\n{messages}"));
        }
        fs::rename(&unfinished, output).map_err(|error| about(output, &error))
    }
}

fn compiler_version(compiler: &OsString) -> Result<Vec<u8>, String> {
    let output = Command::new(compiler).arg("--version").output();
    Ok(output.map_err(|error| missing(compiler, &error))?.stdout)
}

fn missing(compiler: &OsString, error: &std::io::Error) -> String {
    let name = compiler.to_string_lossy();
    format!(
        "{name} cannot be run ({error}): running kernels on the processor takes g++, or what CXX names"
    )
}

/// In Cargo's directory, beside the test binary's; else with other temporary files.
fn directory() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let dependencies = program.parent().filter(|it| it.ends_with("deps"));
    let profile = dependencies.and_then(Path::parent);
    let base = profile.map_or_else(std::env::temp_dir, Path::to_path_buf);
    base.join("backstop-host-kernels")
}

/// Files of this directory with this extension, by name.
fn sources(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(directory).map_err(|error| about(directory, &error))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: Result<Vec<_>, _> = paths.collect();
    let mut paths = paths.map_err(|error| about(directory, &error))?;
    paths.retain(|path| path.extension().is_some_and(|it| it == extension));
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| about(path, &error))
}

fn about(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
