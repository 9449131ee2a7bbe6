//! Pulls that end too early: what they had is not fetched again.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::stand_in::{Fault, status};
use crate::*;

/// The binary's parts.
const PART: usize = 32 << 20;

fn program(hub: &StandIn, store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop-pull"));
    command.env_clear().env("HOME", store.join("home"));
    command.args([
        REPOSITORY,
        "--max-workers",
        "1",
        "--endpoint",
        &hub.url,
        "--to",
    ]);
    command.arg(store.join("store")).stderr(Stdio::piped());
    command
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(mut child: Child) {
    // SIGKILL: it can do nothing about it.
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_pull_that_was_killed_goes_on_with_the_parts_that_it_has() {
    let (scratch, weights) = (Scratch::new(), bytes(3 * PART + 5, 1));
    let hub = StandIn::new(&[("config.json", CONFIG), ("*model.safetensors", &weights)]);
    // The third part never ends.
    let third = format!("bytes={}-{}", 2 * PART, 3 * PART - 1);
    hub.choose(move |request| match request.header("range") {
        Some(range) if range == third && request.is_elsewhere => Fault::StallAfter(1 << 20),
        _ => Fault::None,
    });
    let child = program(&hub, &scratch).spawn().unwrap();
    wait_until("the third part is under way", || {
        hub.bytes_sent() > 2 * PART as u64 + (1 << 19)
    });
    kill(child);
    let sent = hub.bytes_sent();
    hub.choose(|_| Fault::None);
    let output = program(&hub, &scratch).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    assert_mentions(
        &text,
        &[
            "going on with 67.1 MB of 100.7 MB there",
            "complete and checked",
        ],
    );
    assert_eq!(hub.bytes_sent() - sent, PART as u64 + 5);
    let model = scratch.join("store/tiny/model.safetensors");
    assert!(std::fs::read(model).unwrap() == weights);
    assert_eq!(names(&scratch.join("store")), ["tiny", "tiny.toml"]);
}

#[test]
fn the_binary_says_what_is_wrong_without_its_token_and_exits_with_one() {
    let (hub, scratch) = (tiny(), Scratch::new());
    hub.choose(|_| status(403));
    let mut command = program(&hub, &scratch);
    let output = command
        .env("HF_TOKEN", "hf_secret")
        .env("RUST_LOG", "trace")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_mentions(&text, &["this token does not permit"]);
    assert!(!text.contains("hf_secret"), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_model_that_was_moved_but_not_recorded_is_recorded() {
    let (hub, store) = (tiny(), Scratch::new());
    pull_tiny(&hub, &store).unwrap();
    // As if it had ended between the two.
    let manifest = std::fs::read_to_string(store.join("tiny.toml")).unwrap();
    std::fs::remove_file(store.join("tiny.toml")).unwrap();
    std::fs::create_dir(store.join(".pull-tiny")).unwrap();
    std::fs::write(store.join(".pull-tiny/journal"), journal(&store, &hub)).unwrap();
    let sent = hub.bytes_sent();
    pull_tiny(&hub, &store).unwrap();
    assert_eq!(hub.bytes_sent(), sent);
    assert_eq!(
        std::fs::read_to_string(store.join("tiny.toml")).unwrap(),
        manifest
    );
    assert_is_tiny(&store);
}

#[test]
fn a_model_that_was_taken_out_of_the_way_is_put_back() {
    // The manifest goes first, and then the files.
    for is_all_gone in [false, true] {
        let store = Scratch::new();
        let other = tiny_at("ffffffffffffffffffffffffffffffffffffffff", 9);
        pull_tiny(&other, &store).unwrap();
        let kept = |name: &str| store.join(".pull-tiny").join(name);
        std::fs::create_dir_all(kept("files")).unwrap();
        std::fs::rename(store.join("tiny.toml"), kept("old.toml")).unwrap();
        if is_all_gone {
            std::fs::rename(store.join("tiny"), kept("old")).unwrap();
        }
        let hub = tiny();
        hub.choose(|request| match request.is_listing() {
            true => Fault::None,
            false => status(404),
        });
        pull_tiny(&hub, &store).unwrap_err();
        let model = std::fs::read(store.join("tiny/model.safetensors")).unwrap();
        assert!(model == bytes(5500, 9));
        assert!(store.join("tiny.toml").exists());
        hub.choose(|_| Fault::None);
        pull_tiny(&hub, &store).unwrap();
        assert_is_tiny(&store);
    }
}

/// A journal of a pull that has checked everything.
fn journal(store: &Path, hub: &StandIn) -> String {
    let mut text = format!(
        "backstop-pull 1 {REPOSITORY} {} {PART_BYTES}\n",
        stand_in::COMMIT
    );
    for name in names(&store.join("tiny")) {
        let bytes = std::fs::read(store.join("tiny").join(&name)).unwrap();
        let sha256 = stand_in::sha256(&bytes);
        let digest = match hub.is_large(&name) {
            true => sha256.clone(),
            false => stand_in::git_digest(&bytes),
        };
        text.push_str(&format!(
            "checked {sha256} {} {digest} {name}\n",
            bytes.len()
        ));
    }
    text
}
