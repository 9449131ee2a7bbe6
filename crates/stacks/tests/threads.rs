//! Stacks of threads that are known to be somewhere.
#![cfg(target_os = "linux")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use backstop_stacks::{Answer, ThreadStack, capture};

/// One capture at a time: a second one is refused.
static TURN: Mutex<()> = Mutex::new(());

/// The one thread of this name.
fn stack_of(name: &str) -> ThreadStack {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let stacks = capture().expect("stacks");
    let mut named = stacks.into_iter().filter(|thread| thread.name == name);
    let found = named.next().expect("a thread of this name");
    assert!(named.next().is_none());
    found
}

#[inline(never)]
fn a_wait_without_end(end: &Receiver<()>) {
    let _ended = end.recv();
    std::hint::black_box(());
}

#[inline(never)]
fn a_loop_without_end(end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

#[test]
fn a_thread_that_waits_is_found_where_it_waits() {
    let (sender, receiver) = sync_channel::<()>(0);
    let (began, begun) = sync_channel(0);
    let thread = thread::Builder::new().name("who-waits".to_owned());
    let thread = thread.spawn(move || {
        began.send(()).expect("somebody waits");
        a_wait_without_end(&receiver);
    });
    begun.recv().expect("a thread that begins");
    // It goes on into its wait by itself.
    thread::sleep(Duration::from_millis(20));
    let found = stack_of("who-waits").to_string();
    assert!(found.contains("a_wait_without_end"), "{found}");
    assert!(found.contains("threads.rs:"), "{found}");
    assert!(!found.contains("on_signal"), "{found}");
    drop(sender);
    thread.expect("a thread").join().expect("no panic");
}

#[test]
fn a_thread_that_computes_is_found_and_goes_on() {
    let end = Arc::new(AtomicBool::new(false));
    let (began, begun) = sync_channel(0);
    let thread = thread::Builder::new().name("who-computes".to_owned());
    let thread = thread.spawn({
        let end = Arc::clone(&end);
        move || {
            began.send(()).expect("somebody waits");
            a_loop_without_end(&end);
        }
    });
    begun.recv().expect("a thread that begins");
    thread::sleep(Duration::from_millis(20));
    for _ in 0..3 {
        let found = stack_of("who-computes");
        assert!(matches!(found.answer, Answer::Stack(_)), "{found}");
        let found = found.to_string();
        assert!(found.contains("a_loop_without_end"), "{found}");
    }
    end.store(true, Ordering::Relaxed);
    thread.expect("a thread").join().expect("no panic");
}

#[test]
fn the_asking_thread_is_among_them_and_sleeps_are_slept_out() {
    const SLEEP: Duration = Duration::from_millis(100);
    let end = Arc::new(AtomicBool::new(false));
    let thread = thread::Builder::new().name("who-sleeps".to_owned());
    let thread = thread.spawn({
        let end = Arc::clone(&end);
        move || {
            while !end.load(Ordering::Relaxed) {
                let began = Instant::now();
                thread::sleep(SLEEP);
                assert!(began.elapsed() >= SLEEP);
            }
        }
    });
    let found = stack_of("who-sleeps").to_string();
    assert!(found.contains("sleep"), "{found}");
    let own = thread::current()
        .name()
        .expect("a test has a name")
        .to_owned();
    // The kernel keeps 15 bytes.
    let own = stack_of(&own[..15]).to_string();
    assert!(own.contains("capture"), "{own}");
    end.store(true, Ordering::Relaxed);
    thread.expect("a thread").join().expect("no panic");
}
