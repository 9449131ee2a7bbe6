//! Files, programs and devices.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use backstop_sandbox::{Sandbox, SandboxError};

use crate::process::{
    Test, confine_calls_too, confine_files, confine_files_as, need_landlock, run_within, scratch,
    this_program,
};

pub(crate) const TESTS: &[Test] = &[
    ("nothing_is_written", nothing_is_written),
    (
        "what_is_listed_is_read_and_nothing_else",
        what_is_listed_is_read_and_nothing_else,
    ),
    (
        "files_are_read_that_links_in_a_listed_directory_lead_to",
        files_behind_links_are_read,
    ),
    (
        "a_file_that_another_took_the_place_of_is_read",
        a_replaced_file_is_read,
    ),
    ("what_is_open_stays_open", what_is_open_stays_open),
    (
        "a_log_is_written_and_put_aside_and_nothing_else_is_made",
        a_log_is_written_and_put_aside,
    ),
    (
        "devices_are_written_and_nothing_beside_them_is",
        devices_are_written,
    ),
    (
        "the_own_program_is_executed_and_no_other",
        the_own_program_is_executed_and_no_other,
    ),
    (
        "programs_that_are_started_are_confined_as_well",
        children_are_confined,
    ),
    ("other_threads_are_an_error", other_threads_are_an_error),
    (
        "processes_outside_get_no_signal",
        processes_outside_get_no_signal,
    ),
];

/// What some of them run within.
pub(crate) const STEPS: &[Test] = &[
    ("says_its_version", confine_files),
    ("reads_outside", reads_outside),
    ("waits", waits),
];

#[track_caller]
fn is_refused<T>(outcome: std::io::Result<T>) {
    let error = outcome.err().expect("it is refused");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

fn nothing_is_written() {
    confine_files();
    for directory in [
        scratch().join("inside"),
        scratch().join("outside"),
        "/dev/shm".into(),
    ] {
        let new = directory.join("new");
        is_refused(File::create(&new));
        is_refused(fs::create_dir(&new));
        is_refused(symlink("file", &new));
        assert!(!new.exists());
    }
    let file = scratch().join("inside/file");
    is_refused(OpenOptions::new().append(true).open(&file));
    is_refused(OpenOptions::new().write(true).truncate(true).open(&file));
    is_refused(fs::remove_file(&file));
    is_refused(fs::rename(&file, scratch().join("inside/other")));
    // By another directory, and by a name that the kernel makes.
    is_refused(fs::hard_link(&file, scratch().join("outside/other")));
    is_refused(
        OpenOptions::new()
            .write(true)
            .open("/proc/self/oom_score_adj"),
    );
    assert_eq!(fs::read_to_string(file).unwrap(), "inside");
}

fn what_is_listed_is_read_and_nothing_else() {
    confine_files();
    confine_calls_too();
    assert_eq!(
        fs::read_to_string(scratch().join("inside/file")).unwrap(),
        "inside"
    );
    assert_eq!(fs::read_dir(scratch().join("inside")).unwrap().count(), 1);
    assert!(fs::read_to_string("/proc/self/statm").is_ok());
    assert!(fs::read_dir("/sys/devices/system/cpu").is_ok());
    for file in [scratch().join("outside/file"), "/etc/passwd".into()] {
        is_refused(File::open(&file));
    }
    for directory in [
        scratch().join("outside"),
        "/".into(),
        "/etc".into(),
        "/tmp".into(),
    ] {
        is_refused(fs::read_dir(&directory));
    }
    let missing = File::open(scratch().join("inside/missing")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

fn files_behind_links_are_read() {
    let outside = scratch().join("outside");
    fs::write(outside.join("blob"), "blob").unwrap();
    symlink(
        "../outside/blob",
        scratch().join("inside/model.safetensors"),
    )
    .unwrap();
    confine_files();
    let linked = fs::read_to_string(scratch().join("inside/model.safetensors"));
    assert_eq!(linked.unwrap(), "blob");
    is_refused(File::open(outside.join("file")));
}

fn a_replaced_file_is_read() {
    let keys = scratch().join("inside/file");
    // Somebody who is not confined renames when told.
    let mut somebody = Command::new("sh")
        .args([
            "-c",
            "echo new > new && read word && mv new file && echo done",
        ])
        .current_dir(scratch().join("inside"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut sandbox = Sandbox::of_this_program();
    sandbox.allow_reading_anew(&keys);
    confine_files_as(&sandbox);
    assert_eq!(fs::read_to_string(&keys).unwrap(), "inside");
    somebody.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut answer = String::new();
    let mut answers = BufReader::new(somebody.stdout.take().unwrap());
    answers.read_line(&mut answer).unwrap();
    assert_eq!(
        (answer.as_str(), fs::read_to_string(&keys).unwrap().as_str()),
        ("done\n", "new\n")
    );
    somebody.wait().unwrap();
}

fn what_is_open_stays_open() {
    let path = scratch().join("outside/file");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    confine_files();
    file.write_all(b" and more").unwrap();
    is_refused(File::open(path));
}

fn a_log_is_written_and_put_aside() {
    let directory = scratch().join("inside");
    let log = directory.join("log");
    let mut sandbox = Sandbox::of_this_program();
    sandbox.allow_writing_beside(&log);
    confine_files_as(&sandbox);
    confine_calls_too();
    fs::write(directory.join("fresh"), "line").unwrap();
    fs::rename(directory.join("fresh"), &log).unwrap();
    let mut file = OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all(b" and more").unwrap();
    file.sync_data().unwrap();
    File::open(&directory).unwrap().sync_all().unwrap();
    fs::rename(&log, directory.join("aside")).unwrap();
    assert_eq!(
        fs::read_to_string(directory.join("aside")).unwrap(),
        "line and more"
    );
    fs::remove_file(directory.join("aside")).unwrap();
    is_refused(fs::create_dir(directory.join("directory")));
    is_refused(symlink("file", directory.join("link")));
    is_refused(fs::write(scratch().join("outside/file"), "changed"));
    is_refused(fs::rename(
        directory.join("file"),
        scratch().join("outside/other"),
    ));
    is_refused(fs::remove_file(scratch().join("outside/file")));
}

fn devices_are_written() {
    confine_files();
    let mut null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    null.write_all(b"nothing").unwrap();
    assert!(File::open("/dev/urandom").is_ok());
    is_refused(OpenOptions::new().write(true).open("/dev/zero"));
    is_refused(fs::read_dir("/dev"));
}

fn the_own_program_is_executed_and_no_other() {
    let copy = scratch().join("inside/program");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    confine_files();
    confine_calls_too();
    assert!(run_within("no such test").status.success());
    let by_name = Command::new(std::env::current_exe().unwrap())
        .env("BACKSTOP_SANDBOX_TEST", "no such test")
        .status();
    assert!(by_name.unwrap().success());
    is_refused(Command::new("/bin/true").status());
    is_refused(Command::new("/bin/sh").args(["-c", "true"]).status());
    // That it may be read does not help.
    is_refused(Command::new(copy).status());
}

fn children_are_confined() {
    assert!(this_program("reads_outside").status().unwrap().success());
    confine_files();
    let outcome = run_within("reads_outside");
    assert!(!outcome.status.success());
    let why = String::from_utf8_lossy(&outcome.stderr);
    assert!(why.contains("PermissionDenied"), "{why}");
}

fn reads_outside() {
    fs::read(scratch().join("outside/file")).unwrap();
}

fn other_threads_are_an_error() {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || ended.recv());
    let outcome = Sandbox::of_this_program().confine_files();
    assert!(
        matches!(outcome, Err(SandboxError::Threads(2))),
        "{outcome:?}"
    );
    // Nothing is half confined.
    assert!(fs::read_dir(Path::new("/")).is_ok());
    drop(end);
    assert!(thread.join().unwrap().is_err());
}

fn processes_outside_get_no_signal() {
    need_landlock(6);
    // It ends when nobody can say anything to it any more.
    let mut outside = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    confine_files();
    is_refused(outside.kill());
    assert!(outside.wait().unwrap().success());
    let mut inside = this_program("waits").stdin(Stdio::piped()).spawn().unwrap();
    inside.kill().unwrap();
    assert_eq!(inside.wait().unwrap().signal(), Some(9));
}

fn waits() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
