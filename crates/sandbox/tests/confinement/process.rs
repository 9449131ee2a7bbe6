//! Runs tests in processes of their own.

#![expect(clippy::print_stdout, reason = "outcomes of tests are read there")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};

use backstop_sandbox::{Sandbox, confine_calls};

/// A name, and what is run in a process that begins with it.
pub(crate) type Test = (&'static str, fn());

const NAME: &str = "BACKSTOP_SANDBOX_TEST";
const SCRATCH: &str = "BACKSTOP_SANDBOX_SCRATCH";
const SKIPPED: &str = "skipped: ";

/// Runs the one test or step that the environment names; or else all tests whose names have what the
/// command line asks for, as Cargo's own tests have it.
pub(crate) fn main(tests: &[Test], steps: &[Test]) -> ExitCode {
    if let Some(named) = std::env::var_os(NAME) {
        let mut known = tests.iter().chain(steps);
        if let Some((_, test)) = known.find(|(name, _)| named == *name) {
            test();
        }
        return ExitCode::SUCCESS;
    }
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|part| name.contains(part));
    let mut failed = 0;
    for (name, _) in tests.iter().filter(|(name, _)| is_wanted(name)) {
        failed += usize::from(!passes(name));
    }
    println!("{failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn passes(name: &str) -> bool {
    let scratch = Scratch::new(name);
    let output = this_program(name).env(SCRATCH, &scratch.0).output();
    let output = output.expect("this program can be executed");
    let said = String::from_utf8_lossy(&output.stdout);
    let skipped = said.lines().find(|line| line.starts_with(SKIPPED));
    let passed = output.status.success();
    let outcome = if passed { "ok" } else { "FAILED" };
    println!("test {name} ... {}", skipped.unwrap_or(outcome));
    if !passed {
        let why = String::from_utf8_lossy(&output.stderr);
        println!("{}\n{said}{why}", output.status);
    }
    passed
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("backstop-sandbox-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ignored = fs::remove_dir_all(&path);
        for directory in ["inside", "outside"] {
            fs::create_dir_all(path.join(directory)).expect("can be made");
            fs::write(path.join(directory).join("file"), directory).expect("can be written");
        }
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ignored = fs::remove_dir_all(&self.0);
    }
}

/// This program, to begin as that test; as none that there is, it ends with 0 at once.
pub(crate) fn this_program(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(NAME, name);
    command
}

/// What became of running that test within this one, confined as this one is.
pub(crate) fn run_within(name: &str) -> Output {
    this_program(name)
        .output()
        .expect("the own program can be executed")
}

/// A directory of this test, in which there is one to be listed and one not to be.
pub(crate) fn scratch() -> PathBuf {
    PathBuf::from(std::env::var_os(SCRATCH).expect("the test has one"))
}

/// Confines files to this program's needs and what `inside` has. Skips the test where the kernel
/// cannot.
pub(crate) fn confine_files() {
    let mut sandbox = Sandbox::of_this_program();
    sandbox.allow_reading(&scratch().join("inside"));
    confine_files_as(&sandbox);
}

/// As [`confine_files`], to what is given.
pub(crate) fn confine_files_as(sandbox: &Sandbox) {
    let confined = sandbox.confine_files().expect("the first thread is alone");
    println!("files: {confined}");
    if !confined.is_enforced() {
        skip(&confined.to_string());
    }
}

/// Ends the test, which this kernel cannot run.
pub(crate) fn skip(reason: &str) -> ! {
    println!("{SKIPPED}{reason}");
    std::process::exit(0)
}

/// Confines calls, which every kernel can that these tests are run on.
pub(crate) fn confine_calls_too() {
    let confined = confine_calls().expect("calls are confined");
    assert!(confined.is_enforced(), "{confined}");
}

/// The version of Landlock's interface is at least this; skips the test where it is not.
pub(crate) fn need_landlock(version: i32) {
    if landlock_version() < version {
        skip(&format!("needs Landlock {version}"));
    }
}

/// As a confined process of its own says it.
fn landlock_version() -> i32 {
    let said = run_within("says_its_version").stdout;
    let said = String::from_utf8_lossy(&said);
    let number = said.split("(Landlock ").nth(1).unwrap_or("0");
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}
