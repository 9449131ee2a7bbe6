//! The root file system of a program: what of the host it may read, and what it has of its own.
//!
//! Made in three steps, as bubblewrap does it. A small file system in memory takes the place of the root, with the host's
//! below `/old` and the new one below `/new`; `/new` is furnished, and sealed (`seal`); then it takes the place of the root
//! itself, and all else is let go.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};
use rustix::process::{chdir, pivot_root};

use super::wire::{Failure, Layer, Settings};
use super::{copy, proc, seal};

/// Where the first file system is put; nearly every system has this directory.
const STAGING: &str = "/tmp";
const NEW: &str = "/new";
const OLD: &str = "/old";
const DISK: &str = "/disk";
/// The next stage's program and the program's input, within.
pub(crate) const STAGE_FILE: &str = "/run/stage";
pub(crate) const INPUT_FILE: &str = "/run/input";

const LAYER: &str = "root file system";
/// What programs need of the system; those that are links stay links.
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What libraries look for. Nothing here says who uses the machine.
const ETC: [&str; 4] = ["ld.so.cache", "alternatives", "localtime", "mime.types"];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Directories and links of the root's own, and a margin.
const ROOT_BYTES: u64 = 1 << 20;
const ROOT_FILES: u64 = 4096;
/// A file of the disk for each so many of its bytes, so that a file system full of empty files is small as well.
const BYTES_FOR_FILE: u64 = 8 << 10;
const FILES_MIN: u64 = 1024;

/// Makes it, and enters it. The input is what comes next from the socket.
pub(crate) fn build(settings: &Settings, control: &UnixStream) -> Result<(), Failure> {
    let shown = shown(&settings.read_only)?;
    let directory = settings.directory.as_deref().map(canonical).transpose()?;
    let program = own_program()?;
    step_aside().layer(LAYER, "stepping aside")?;
    furnish(settings).layer(LAYER, "its own directories")?;
    system().layer(LAYER, "the system's directories")?;
    for (path, source) in &shown {
        show(path, source).layer(LAYER, format_args!("showing {}", path.display()))?;
    }
    if let Some(directory) = directory {
        let owner = settings
            .is_another
            .then_some((settings.user, settings.group));
        copy::tree(
            &below(OLD, &directory),
            &below(DISK, Path::new("/work")),
            owner,
        )
        .layer("disk", format_args!("copying {}", directory.display()))?;
    }
    devices().layer(LAYER, "its devices")?;
    proc::mount(&below(NEW, Path::new("/proc"))).map_err(|error| {
        Failure::of("process file system", format_args!("mounting it: {error}"))
    })?;
    keep_program(&program).layer(LAYER, "its own program")?;
    keep_input(settings.input_bytes, control).layer(LAYER, "the program's input")?;
    seal::below(NEW).layer(LAYER, "making it unchangeable")?;
    enter().layer(LAYER, "entering it")
}

/// Where paths that are shown lie in truth, each in its directory before those in it. A path whose parts are links is shown
/// by both its names.
fn shown(paths: &[PathBuf]) -> Result<Vec<(PathBuf, PathBuf)>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        let source = canonical(path)?;
        found.push((path.clone(), source.clone()));
        found.push((source.clone(), source));
    }
    found.sort();
    let mut kept: Vec<(PathBuf, PathBuf)> = Vec::new();
    for (path, source) in found {
        let in_system = SYSTEM
            .iter()
            .any(|name| path.starts_with(Path::new("/").join(name)));
        if !in_system && !kept.iter().any(|(above, _)| path.starts_with(above)) {
            kept.push((path, source));
        }
    }
    Ok(kept)
}

fn canonical(path: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(path).map_err(|error| Failure {
        is_programs: true,
        ..Failure::of(&path.display().to_string(), error)
    })
}

fn below(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").unwrap_or(path))
}

/// Puts a file system of our own in the root's place.
fn step_aside() -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    memory_at(Path::new(STAGING), ROOT_BYTES, ROOT_FILES)?;
    for name in [NEW, OLD, DISK] {
        fs::create_dir(below(STAGING, Path::new(name)))?;
    }
    chdir(STAGING)?;
    pivot_root(STAGING, below(STAGING, Path::new(OLD)))?;
    chdir("/")?;
    Ok(())
}

fn memory_at(path: &Path, bytes: u64, files: u64) -> io::Result<()> {
    let options = format!("size={bytes},nr_inodes={files},mode=0755");
    let options = CString::new(options).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("tmpfs", path, "tmpfs", flags, options.as_c_str())?)
}

/// The new root, and its disk: one file system, so that one size bounds all that can be written.
fn furnish(settings: &Settings) -> io::Result<()> {
    memory_at(
        Path::new(NEW),
        ROOT_BYTES + settings.input_bytes,
        ROOT_FILES,
    )?;
    let files = (settings.limits.disk_bytes / BYTES_FOR_FILE).max(FILES_MIN);
    memory_at(Path::new(DISK), settings.limits.disk_bytes, files)?;
    for name in ["dev", "dev/shm", "etc", "proc", "run", "tmp", "work"] {
        fs::create_dir(Path::new(NEW).join(name))?;
    }
    for (name, place, mode) in [
        ("work", "work", 0o755),
        ("tmp", "tmp", 0o1777),
        ("shm", "dev/shm", 0o1777),
    ] {
        let directory = Path::new(DISK).join(name);
        fs::create_dir(&directory)?;
        fs::set_permissions(&directory, Permissions::from_mode(mode))?;
        if settings.is_another {
            chown(&directory, Some(settings.user), Some(settings.group))?;
        }
        mount_bind(&directory, Path::new(NEW).join(place))?;
    }
    users(settings)
}

/// The files that say who there is: root, nobody, and the program's user.
fn users(settings: &Settings) -> io::Result<()> {
    let Settings { user, group, .. } = settings;
    let etc = Path::new(NEW).join("etc");
    let mut passwd = "root:x:0:0::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n".to_owned();
    let mut groups = "root:x:0:\nnogroup:x:65534:\n".to_owned();
    if *user != 0 {
        passwd.push_str(&format!("job:x:{user}:{group}::/tmp:/bin/sh\n"));
        groups.push_str(&format!("job:x:{group}:\n"));
    }
    fs::write(etc.join("passwd"), passwd)?;
    fs::write(etc.join("group"), groups)?;
    fs::write(
        etc.join("hosts"),
        "127.0.0.1 localhost isolated\n::1 localhost isolated\n",
    )?;
    fs::write(
        etc.join("nsswitch.conf"),
        "passwd: files\ngroup: files\nhosts: files\n",
    )
}

fn system() -> io::Result<()> {
    for name in SYSTEM {
        present(&Path::new("/").join(name))?;
    }
    for name in ETC {
        present(&Path::new("/etc").join(name))?;
    }
    Ok(())
}

/// Shows a path of the host, if it is there; a link as the link that it is.
fn present(path: &Path) -> io::Result<()> {
    let source = below(OLD, path);
    let Ok(about) = fs::symlink_metadata(&source) else {
        return Ok(());
    };
    if about.is_symlink() {
        return symlink(fs::read_link(&source)?, below(NEW, path));
    }
    show(path, path)
}

/// Shows what lies at a source of the host, at a path.
fn show(path: &Path, source: &Path) -> io::Result<()> {
    let (source, target) = (below(OLD, source), below(NEW, path));
    if fs::metadata(&source)?.is_dir() {
        fs::create_dir_all(&target)?;
    } else {
        if let Some(directory) = target.parent() {
            fs::create_dir_all(directory)?;
        }
        make_file(&target)?;
    }
    // With what is mounted in it: without privileges, nobody may look behind a mount.
    Ok(mount_bind_recursive(source, target)?)
}

fn make_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)
}

fn devices() -> io::Result<()> {
    let devices = Path::new(NEW).join("dev");
    for name in DEVICES {
        show(&Path::new("/dev").join(name), &Path::new("/dev").join(name))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, devices.join(name))?;
    }
    Ok(())
}

/// Where this program lies. The kernel's own link to it leads to a mount of other namespaces, which cannot be shown here.
fn own_program() -> Result<PathBuf, Failure> {
    const LINK: &str = "/proc/self/exe";
    let path = fs::read_link(LINK).layer(LAYER, "its own program")?;
    let same = |path: &Path| {
        fs::metadata(path)
            .map(|about| (about.dev(), about.ino()))
            .ok()
    };
    match same(&path) == same(Path::new(LINK)) {
        true => Ok(path),
        false => Err(Failure::of(
            LAYER,
            format_args!(
                "{} is no longer the program that was started; start it again",
                path.display()
            ),
        )),
    }
}

/// The next stage's program, as a mount that nothing can be written by.
fn keep_program(program: &Path) -> io::Result<()> {
    let stage = below(NEW, Path::new(STAGE_FILE));
    make_file(&stage)?;
    Ok(mount_bind(below(OLD, program), &stage)?)
}

/// The program's input, as a file.
fn keep_input(bytes: u64, control: &UnixStream) -> io::Result<()> {
    let mut input = make_file(&below(NEW, Path::new(INPUT_FILE)))?;
    let written = io::copy(&mut control.take(bytes), &mut input)?;
    if written < bytes {
        return Err(io::Error::other("the input is not whole"));
    }
    input.flush()
}

/// The new root takes the place of the root; what was there lies over it for a moment, and is let go.
fn enter() -> io::Result<()> {
    chdir(NEW)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_what_is_shown_is_not_shown_again() {
        let shown = shown(&["/tmp".into(), "/usr/lib".into(), "/tmp/.".into()]).unwrap();
        assert_eq!(shown, [("/tmp".into(), "/tmp".into())]);
        let missing = super::shown(&["/no/such/path".into()]).unwrap_err();
        assert!(missing.is_programs && missing.layer == "/no/such/path");
    }
}
