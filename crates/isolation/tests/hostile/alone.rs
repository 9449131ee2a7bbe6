//! Programs of which more is to be looked at than how they end.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backstop_isolation::{Ended, Finished, Isolation, IsolationError};

use super::common::{ISOLATION, PYTHON, job, text, words};
use super::table::HOSTILE;
use super::{HOST, SECRET};

/// The programs of these tests.
pub(crate) const PROGRAMS: &[&str] = &[
    "attempt.py",
    "daemon.py",
    "late_writer.py",
    "leaves_something.py",
    "own_interpreter.sh",
    "signals.py",
];

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile")
}

fn run(program: &[&str]) -> Finished {
    let program = words(program);
    let finished = ISOLATION.run(&job(&program, Some(&programs())));
    finished.expect("it runs")
}

/// Whether a process of the host has this word among its arguments.
fn runs(word: &str) -> bool {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let arguments = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let mut arguments = arguments.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    arguments.any(|arguments| arguments.split('\0').any(|argument| argument == word))
}

#[test]
fn what_a_program_leaves_behind_is_dead_when_its_end_is_told() {
    let mark = format!("outlives-{}", std::process::id());
    let finished = run(&["python", "daemon.py", &mark]);
    assert_eq!(finished.ended, Ended::Exited(0), "{}", text(&finished));
    assert!(text(&finished).contains(&mark));
    assert!(!runs(&mark));
    assert!(finished.seconds < 60.0);
}

#[test]
fn what_is_timed_out_is_dead_when_its_end_is_told() {
    let mark = format!("sleeps-{}", std::process::id());
    let program = words(&["python", "sleeper.py", &mark]);
    let directory = programs();
    let mut job = job(&program, Some(&directory));
    job.limits.wall = Duration::from_secs(1);
    assert_eq!(ISOLATION.run(&job).unwrap().ended, Ended::TimedOut);
    assert!(!runs(&mark));
}

/// The one who asks, in the test below.
#[test]
#[ignore = "it is killed by another test, which starts it"]
fn asks_until_it_is_killed() {
    let mark = std::env::var(MARK).expect("a mark");
    run(&["python", "sleeper.py", &mark]);
}

const MARK: &str = "BACKSTOP_ISOLATION_MARK";

#[test]
fn everything_is_dead_when_the_one_who_asked_is_killed() {
    let mark = format!("orphan-{}", std::process::id());
    let mut asking = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "alone::asks_until_it_is_killed"])
        .env(MARK, &mark)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let is_soon = |expected: bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while runs(&mark) != expected {
            assert!(Instant::now() < deadline, "{mark} runs: {}", !expected);
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    is_soon(true);
    asking.kill().unwrap();
    asking.wait().unwrap();
    is_soon(false);
    // Whoever asks next removes the control group that is left, if there was one.
    for _ in 0..3 {
        Isolation::by(env!("CARGO_BIN_EXE_backstop-contain").into()).unwrap();
    }
}

#[test]
fn nothing_is_written_to_the_host_even_late() {
    let finished = run(&["python", "late_writer.py"]);
    assert_eq!(finished.ended, Ended::Exited(0), "{}", text(&finished));
    assert!(!programs().join("result").exists());
}

#[test]
fn the_next_program_finds_nothing_of_the_last() {
    for _ in 0..2 {
        let finished = run(&["python", "leaves_something.py"]);
        let said = text(&finished);
        assert_eq!(finished.ended, Ended::Exited(0), "{said}");
        assert!(!said.contains("ESCAPED"), "{said}");
    }
}

#[test]
fn programs_that_run_at_once_do_not_reach_one_another() {
    let (patient, killer) = std::thread::scope(|scope| {
        let source = "import time; time.sleep(4); print('still there')";
        let patient = scope.spawn(move || run(&["python", "-c", source]));
        let killer = scope.spawn(|| run(&["python", "signals.py"]));
        (patient.join().unwrap(), killer.join().unwrap())
    });
    assert_eq!(patient.output, b"still there\n", "{}", text(&patient));
    assert_eq!(killer.output, b"reached: []\n", "{}", text(&killer));
}

#[test]
fn what_contains_a_program_is_not_its_interpreter() {
    let program = words(&["./own_interpreter.sh"]);
    let error = ISOLATION
        .run(&job(&program, Some(&programs())))
        .unwrap_err();
    assert!(matches!(error, IsolationError::Program { .. }), "{error}");
}

#[test]
fn what_was_left_open_is_not_handed_on() {
    let file = fs::File::open(HOST.directory.join("secret")).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let finished = run(&["python", "environment.py"]);
    let said = text(&finished);
    assert!(said.ends_with("more: []\n"), "{said}");
}

#[test]
fn links_in_a_directory_are_not_followed_when_it_is_copied() {
    let directory = HOST.directory.join("with-links");
    fs::create_dir_all(&directory).unwrap();
    symlink(HOST.directory.join("secret"), directory.join("file")).unwrap();
    symlink(&HOST.directory, directory.join("all")).unwrap();
    let program = words(&["sh", "-c", "cat file all/secret; ls -A all/; readlink file"]);
    let finished = ISOLATION.run(&job(&program, Some(&directory))).unwrap();
    let said = text(&finished);
    assert!(!said.contains(SECRET), "{said}");
    assert!(said.contains("No such file"), "{said}");
}

#[test]
fn the_caller_survives_all_of_them_with_its_limits_and_its_files() {
    let before = fs::read_to_string("/proc/self/limits").unwrap();
    let user = fs::read_to_string("/proc/self/uid_map").unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let finished = run(HOSTILE[0].program);
    assert_eq!(finished.ended, Ended::Exited(0), "{}", text(&finished));
    assert_eq!(fs::read_to_string("/proc/self/limits").unwrap(), before);
    assert_eq!(fs::read_to_string("/proc/self/uid_map").unwrap(), user);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    assert!(PYTHON.program.exists());
}
