//! A repository of shell scripts, made here, whose tests a shell runs: what becomes a task, and what answers are worth.
//!
//! These tests' own scripts are run bare; `tests/python/test_qualify_repo.py` runs others in isolation.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use clap::Parser;

use super::contained::Ran;
use super::*;
use crate::scratch::Scratch;

const TEST: &str = "set -e; for test in {tests}; do . \"./$test\"; done; echo \"# pass $#\"";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    repo: RepoArgs,
}

/// Runs trusted scripts. What names `flaky` passes every other time.
#[derive(Default)]
struct Shell(Mutex<u32>);

impl Runs for Shell {
    fn run(&self, directory: &Path, argv: &[OsString]) -> Result<Ran, QualifyError> {
        if argv
            .iter()
            .any(|word| word.to_string_lossy().contains("flaky"))
        {
            let mut runs = self.0.lock().unwrap();
            *runs += 1;
            // Without the commit it always fails, for runs alternate.
            let well = *runs % 4 == 2;
            return Ok(Ran::new(well, "ended".into(), b"", b""));
        }
        let ran = Command::new(&argv[0])
            .args(&argv[1..])
            .current_dir(directory)
            .output()
            .unwrap();
        let ended = ran.status.to_string();
        Ok(Ran::new(
            ran.status.success(),
            ended,
            &ran.stdout,
            &ran.stderr,
        ))
    }
}

/// A repository that is made commit by commit.
struct Made(Scratch);

impl Made {
    fn new() -> Self {
        let made = Self(Scratch::make("made").unwrap());
        made.git(&["init", "-q", "-b", "main"]);
        made
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn git(&self, arguments: &[&str]) {
        let done = Command::new("git")
            .args(["-c", "user.name=Test", "-c", "user.email=test@example.org"])
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            // A hostile repository's hooks are not for its maker.
            .args(["-c", "core.hooksPath=/dev/null"])
            .args(arguments)
            .current_dir(self.path())
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    fn write(&self, path: &str, text: &str) {
        let place = self.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
    }

    fn commit(&self, message: &str, files: &[(&str, &str)]) {
        for (path, text) in files {
            self.write(path, text);
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--no-verify", "-m", message]);
    }

    fn open(&self, more: &[&str]) -> Result<RepoSuite, QualifyError> {
        self.open_at(&self.kept(), more)
    }

    fn kept(&self) -> PathBuf {
        self.path().join(".git/kept/selection.json")
    }

    fn open_at(&self, kept: &Path, more: &[&str]) -> Result<RepoSuite, QualifyError> {
        let line = ["test", "--repo", "unused", "--repo-test", TEST];
        let args = Line::parse_from(line.iter().chain(more)).repo;
        let asked = Asked {
            name: "repo",
            path: self.path(),
            args: &args,
            seed: 7,
            pass_at: &[1],
            kept,
        };
        RepoSuite::open(&asked, Box::new(Shell::default()), "")
    }
}

const ADD: &str = "add() { echo $(($1 + $2)); }\n";
const ADD_TEST: &str = ". ./calc.sh\n[ \"$(add 2 3)\" = 5 ]\n";

/// Commits of every kind: two are tasks.
fn calculator() -> Made {
    let made = Made::new();
    made.commit(
        "Begin with nothing much",
        &[
            ("calc.sh", "add() { echo 0; }\n"),
            ("README.md", "a calculator\n"),
        ],
    );
    made.commit(
        "Make add really add\n\nSigned-off-by: T <t@example.org>",
        &[("calc.sh", ADD), ("tests/test_add.sh", ADD_TEST)],
    );
    made.commit(
        "Say what it does",
        &[("README.md", "a calculator that adds\n")],
    );
    made.commit(
        "Test sums of zero too",
        &[(
            "tests/test_zero.sh",
            ". ./calc.sh\n[ \"$(add 0 0)\" = 0 ]\n",
        )],
    );
    made.commit(
        "Rename a variable somewhere",
        &[("calc.sh", "add() { echo $(($2 + $1)); }\n")],
    );
    made.commit(
        "Write add more nicely",
        &[
            ("calc.sh", ADD),
            (
                "tests/test_nice.sh",
                ". ./calc.sh\n[ \"$(add 1 1)\" = 2 ]\n",
            ),
        ],
    );
    made.commit(
        "Use a program that nobody has",
        &[
            ("needy.sh", "nobody-has-this\n"),
            ("tests/test_needy.sh", "sh ./needy.sh\n"),
        ],
    );
    made.commit(
        "Pass now and then",
        &[
            ("dice.sh", "true\n"),
            ("tests/test_flaky.sh", "sh ./dice.sh\n"),
        ],
    );
    made.commit(
        "wip",
        &[("wip.sh", "true\n"), ("tests/test_wip.sh", "sh ./wip.sh\n")],
    );
    made.commit(
        "Add a whole library at once",
        &[
            ("big.sh", &"true\n".repeat(500)),
            ("tests/test_big.sh", "sh ./big.sh\n"),
        ],
    );
    made.commit(
        "Multiply as well as add",
        &[
            ("lib/times.sh", "product() { echo $(($1 * $2)); }\n"),
            (
                "tests/test_times.sh",
                ". ./lib/times.sh\n[ \"$(product 2 3)\" = 6 ]\n",
            ),
            ("README.md", "a calculator that multiplies\n"),
        ],
    );
    made
}

fn reply(text: &str) -> Reply {
    Reply {
        text: text.into(),
        finish_reason: Some("stop".into()),
        ..Reply::default()
    }
}

/// The task whose request begins like this.
fn task_of(suite: &RepoSuite, request: &str) -> usize {
    let is_it = |task: &Task| task.message.starts_with(request);
    suite.selection.tasks.iter().position(is_it).unwrap()
}

fn judged(suite: &RepoSuite, task: usize, answer: &str) -> Judgement {
    match suite.step(task, 0, &[reply(answer)]).unwrap() {
        Step::Judged(judgement) => judgement,
        Step::Ask(_) => panic!("it asks again"),
    }
}

fn whole(path: &str, text: &str) -> String {
    format!("FILE: {path}\n```\n{text}```\n")
}

#[test]
fn commits_with_code_and_tests_that_judge_it_become_tasks_and_others_are_left_out_with_a_reason() {
    let made = calculator();
    let suite = made.open(&[]).unwrap();
    let mut requests: Vec<&str> = suite
        .selection
        .tasks
        .iter()
        .map(|task| task.message.as_str())
        .collect();
    requests.sort_unstable();
    assert_eq!(requests, ["Make add really add", "Multiply as well as add"]);
    let reasons = suite.selection.reasons();
    for (reason, count) in [
        ("no_code", 2),
        ("no_tests", 1),
        ("passes_before", 1),
        ("fails_after", 1),
        ("flaky", 1),
        ("no_request", 1),
        ("too_large", 1),
    ] {
        assert_eq!(reasons.get(reason), Some(&count), "{reason}: {reasons:?}");
    }
}

#[test]
fn what_is_asked_shows_the_state_before_and_not_the_answer() {
    let made = calculator();
    let suite = made.open(&[]).unwrap();
    let Step::Ask(body) = suite.step(task_of(&suite, "Make add"), 0, &[]).unwrap() else {
        panic!("it judges nothing");
    };
    let text = body["messages"][1]["content"].as_str().unwrap();
    assert!(
        text.contains("Make add really add") && text.contains("add() { echo 0; }"),
        "{text}"
    );
    assert!(
        !text.contains("$1 + $2") && !text.contains("add 2 3"),
        "{text}"
    );
    assert!(!text.contains("Signed-off-by"), "{text}");
    let elsewhere = made.path().join(".git/kept/other.json");
    let shown = made.open_at(&elsewhere, &["--repo-show-tests"]).unwrap();
    let Step::Ask(body) = shown.step(task_of(&shown, "Make add"), 0, &[]).unwrap() else {
        panic!("it judges nothing");
    };
    assert!(body.to_string().contains("add 2 3"));
}

#[test]
fn the_real_change_passes_and_an_idle_one_fails() {
    let made = calculator();
    let suite = made.open(&[]).unwrap();
    let add = task_of(&suite, "Make add");
    let times = task_of(&suite, "Multiply");
    let right = judged(&suite, add, &whole("calc.sh", ADD));
    assert_eq!((right.outcome, right.score), (Outcome::Passed, 1.0));
    let new_file = "lib/times.sh";
    let right = judged(
        &suite,
        times,
        &whole(new_file, "product() { echo $(($1 * $2)); }\n"),
    );
    assert_eq!(right.outcome, Outcome::Passed, "{right:?}");
    let places = "FILE: calc.sh\n```\n<<<<<<< SEARCH\nadd() { echo 0; }\n=======\n\
                  add() { echo $(($1 + $2)); }\n>>>>>>> REPLACE\n```";
    assert_eq!(judged(&suite, add, places).outcome, Outcome::Passed);
    let idle = judged(&suite, add, &whole("calc.sh", "add() { echo 1; }\n"));
    assert_eq!((idle.outcome, idle.score), (Outcome::Failed, 0.0));
    assert_eq!(idle.marks["applied"], true);
    assert_eq!(
        judged(&suite, add, "I would rather not.").marks["applied"],
        false
    );
}

#[test]
fn answers_that_touch_tests_or_lead_out_fail() {
    let made = calculator();
    let suite = made.open(&[]).unwrap();
    let add = task_of(&suite, "Make add");
    for (answer, why) in [
        (whole("tests/test_add.sh", "true\n"), "is a test"),
        (whole("tests/other.sh", "true\n"), "is a test"),
        (whole("../calc.sh", ADD), "no path in the repository"),
        (whole("/tmp/calc.sh", ADD), "no path in the repository"),
        (whole(".git/hooks/post-checkout", "true\n"), "git's own"),
        (whole("calc.sh/inner", "true\n"), "a file and a directory"),
        (whole("tests", "true\n"), "a file and a directory"),
    ] {
        let judgement = judged(&suite, add, &answer);
        assert_eq!(judgement.outcome, Outcome::Failed, "{answer}");
        let reason = judgement.reason.unwrap();
        assert!(reason.contains(why), "{answer}: {reason}");
        assert_eq!(judgement.marks["applied"], false);
    }
}

#[test]
fn a_program_that_ends_the_tests_early_does_not_pass() {
    let made = calculator();
    let suite = made.open(&[]).unwrap();
    let add = task_of(&suite, "Make add");
    assert_eq!(suite.selection.tasks[add].passed, Some(1));
    // The tests are read into the same shell, which ends with status 0.
    let early = judged(&suite, add, &whole("calc.sh", "exit 0\n"));
    assert_eq!(early.outcome, Outcome::Failed);
    assert!(early.reason.unwrap().contains("0 passed instead of 1"));
}

#[test]
fn answers_without_an_end_are_told_apart() {
    let made = calculator();
    let suite = made.open(&[]).unwrap();
    let mut cut = reply(&whole("calc.sh", ADD));
    cut.finish_reason = Some("length".into());
    let Step::Judged(judgement) = suite.step(task_of(&suite, "Make add"), 0, &[cut]).unwrap()
    else {
        panic!("it asks again");
    };
    assert_eq!(judgement.outcome, Outcome::Truncated);
}

#[test]
fn the_same_seed_gives_the_same_tasks_and_a_kept_selection_is_taken_again() {
    let made = calculator();
    let first = made.open(&[]).unwrap().selection;
    fs::remove_file(made.kept()).unwrap();
    assert_eq!(made.open(&[]).unwrap().selection, first);
    // Had it been made again, its tasks would be two.
    let mut kept = first.clone();
    kept.tasks.truncate(1);
    kept.write(&made.kept()).unwrap();
    assert_eq!(made.open(&[]).unwrap().names.len(), 1);
    let error = made.open(&["--repo-lines-max", "199"]).err().unwrap();
    assert!(error.to_string().contains("another lines_max"), "{error}");
    let elsewhere = made.path().join(".git/kept/other.json");
    let one = made.open_at(&elsewhere, &["--repo-commits", "1"]).unwrap();
    assert_eq!(one.names.len(), 1);
    assert!(one.selection.not_tried > 0);
}

#[test]
fn a_repository_without_tasks_says_why() {
    let made = Made::new();
    made.commit("Begin with nothing much", &[("a.sh", "true\n")]);
    made.commit("Change one thing only", &[("a.sh", "false\n")]);
    let error = made.open(&[]).err().unwrap().to_string();
    assert!(error.contains("no_tests"), "{error}");
    let nowhere = Scratch::make("nowhere").unwrap();
    let none = Repository::open(nowhere.path(), "HEAD")
        .err()
        .unwrap()
        .to_string();
    assert!(none.contains("not a git repository"), "{none}");
    let error = Repository::open(made.path(), "no-such-branch")
        .err()
        .unwrap();
    assert!(error.to_string().contains("no commit"), "{error}");
}

/// Hooks, filters, attributes, settings and links of a repository that means harm leave no trace.
#[test]
fn a_hostile_repository_does_nothing() {
    let made = calculator();
    let trace = Scratch::make("trace").unwrap();
    let touch = |name: &str| format!("touch {}", trace.path().join(name).display());
    for hook in [
        "post-checkout",
        "post-index-change",
        "reference-transaction",
        "pre-auto-gc",
    ] {
        let place = made.path().join(".git/hooks").join(hook);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, format!("#!/bin/sh\n{}\n", touch(hook))).unwrap();
        Command::new("chmod")
            .arg("+x")
            .arg(&place)
            .status()
            .unwrap();
    }
    symlink("/etc", made.path().join("out")).unwrap();
    symlink("../..", made.path().join("lib/up")).unwrap();
    symlink("calc.sh", made.path().join("within")).unwrap();
    made.commit("Lead to other places", &[]);
    made.commit(
        "Subtract by means that mean harm",
        &[
            (
                ".gitattributes",
                "*.sh filter=harm diff=harm\n*.sh export-subst\n",
            ),
            ("minus.sh", "minus() { echo $(($1 - $2)); }\n"),
            (
                "tests/test_minus.sh",
                ". ./minus.sh\n[ \"$(minus 3 2)\" = 1 ]\n",
            ),
        ],
    );
    for (key, name) in [
        ("filter.harm.smudge", "smudge"),
        ("filter.harm.process", "process"),
        ("diff.harm.textconv", "textconv"),
        ("diff.harm.command", "external"),
        ("core.fsmonitor", "fsmonitor"),
        ("core.pager", "pager"),
        ("core.sshCommand", "ssh"),
        ("core.gitProxy", "proxy"),
        ("uploadpack.packObjectsHook", "pack"),
        ("alias.log", "alias"),
    ] {
        let value = if key == "alias.log" {
            format!("!{}", touch(name))
        } else {
            touch(name)
        };
        made.git(&["config", key, &value]);
    }
    made.git(&["config", "core.hooksPath", ".git/hooks"]);
    made.git(&["config", "core.worktree", "/nonexistent"]);
    let suite = made.open(&[]).unwrap();
    let minus = task_of(&suite, "Subtract");
    let answer = whole("minus.sh", "minus() { echo $(($1 - $2)); }\n");
    assert_eq!(judged(&suite, minus, &answer).outcome, Outcome::Passed);
    let behind = judged(&suite, minus, &whole("out/passwd", "x\n"));
    assert!(behind.reason.unwrap().contains("behind a link"));
    let traces: Vec<_> = fs::read_dir(trace.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(traces.is_empty(), "{traces:?}");
    let tree = suite
        .repository
        .tree(&suite.selection.tasks[minus].commit)
        .unwrap();
    let directory = check_out(&suite.repository, &tree, &Overlay::default()).unwrap();
    let root = tree_of(&directory);
    assert!(
        fs::symlink_metadata(root.join("within"))
            .unwrap()
            .is_symlink()
    );
    assert!(!root.join("out").exists() && !root.join("lib/up").exists());
}
