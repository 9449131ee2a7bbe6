//! What a dynamically linked program needs to be executed, to load libraries and to look at its
//! machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where libraries are, and what says so; where time zones, the machine and its randomness are read.
const READ: [&str; 19] = [
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nvidia",
    "/lib",
    "/lib64",
    "/nix/store",
    "/opt/cuda",
    "/proc",
    "/run/opengl-driver",
    "/sys",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/nvidia",
    "/usr/share/nvidia",
];
/// Devices of GPUs, by how their names begin: NVIDIA's cards, its boards with a GPU, and WSL's.
const GPUS: [&str; 5] = ["dxg", "nvgpu", "nvhost", "nvidia", "nvmap"];
/// Another program may have taken this one's name since it was started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What is read: the system's libraries, those of CUDA, and what the environment names as such.
pub(crate) fn read() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = READ.into_iter().map(PathBuf::from).collect();
    paths.extend(beginning_with("/usr/local", &["cuda"]));
    if let Some(named) = std::env::var_os("LD_LIBRARY_PATH") {
        // An empty entry is the current directory to the loader; nobody means that.
        let named = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty());
        paths.extend(named);
    }
    existing(paths)
}

/// What is executed: this program, and the loader, to which the kernel gives it. The loader is
/// allowed with its directory, for an update of the C library puts another in its place.
pub(crate) fn read_execute() -> Vec<PathBuf> {
    let mapped = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut paths = vec![PathBuf::from(THIS_PROGRAM)];
    paths.extend(directories_of_libraries(&mapped));
    existing(paths)
}

/// What is written to: where unwanted output goes, and GPUs.
pub(crate) fn devices() -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/dev/null")];
    paths.extend(beginning_with("/dev", &GPUS));
    existing(paths)
}

/// Where the libraries lie that this process has loaded, as `/proc/self/maps` names them.
fn directories_of_libraries(mapped: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| line.find('/').map(|start| PathBuf::from(&line[start..]));
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains(".so")
    };
    let libraries = mapped.lines().filter_map(path).filter(is_library);
    libraries
        .filter_map(|library| library.parent().map(Path::to_owned))
        .collect()
}

fn beginning_with(directory: &str, beginnings: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            beginnings.iter().any(|start| name.starts_with(start))
        })
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

fn existing(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.into_iter().filter(|path| path.exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_where_this_process_has_them() {
        let mapped = "\
            5581-5582 r-xp 00000000 fe:01 1234      /usr/bin/backstop\n\
            7f01-7f02 r--p 00000000 fe:01 1235      /usr/lib/x86_64-linux-gnu/libc.so.6\n\
            7f02-7f03 r-xp 00026000 fe:01 1235      /usr/lib/x86_64-linux-gnu/libc.so.6\n\
            7f03-7f04 rw-p 00000000 00:00 0 \n\
            7f04-7f05 r-xp 00000000 fe:01 1236      /opt/my libraries/ld-linux.so.2 (deleted)\n\
            7ffd-7ffe rw-p 00000000 00:00 0         [stack]\n";
        let found: Vec<PathBuf> = directories_of_libraries(mapped).into_iter().collect();
        let expected = ["/opt/my libraries", "/usr/lib/x86_64-linux-gnu"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_what_exists_is_listed_and_no_directory_of_programs_is() {
        let all = [read(), read_execute(), devices()].concat();
        assert!(all.iter().all(|path| path.exists()));
        for needed in ["/proc", "/sys", "/dev/null", THIS_PROGRAM] {
            assert!(all.contains(&PathBuf::from(needed)), "{needed}");
        }
        let not_needed = [
            "/", "/bin", "/dev", "/etc", "/home", "/tmp", "/usr", "/usr/bin",
        ];
        for path in not_needed {
            assert!(!all.contains(&PathBuf::from(path)), "{path}");
        }
    }
}
