//! A disk without room. Needs the right to mount one; without it there is nothing to test here.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::stand_in::Fault;
use crate::*;

/// A small file system of its own.
struct SmallDisk(Scratch);

impl SmallDisk {
    fn new(megabytes: u32) -> Option<Self> {
        let scratch = Scratch::new();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&*scratch)
            .output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        is_mounted.then_some(Self(scratch))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ignored = Command::new("umount").arg(&*self.0).status();
    }
}

#[test]
fn too_little_room_is_said_first() {
    let Some(disk) = SmallDisk::new(16) else {
        return;
    };
    let hub = tiny();
    let error = pull_tiny(&hub, &disk.0.join("store")).unwrap_err();
    assert_mentions(&error, &["16.8 MB are free there", "make room"]);
    assert_eq!(hub.bytes_sent(), 0);
}

#[test]
fn a_disk_that_fills_up_ends_the_pull_and_room_lets_it_go_on() {
    let Some(disk) = SmallDisk::new(80) else {
        return;
    };
    let (hub, store, filler) = (tiny(), disk.0.join("store"), disk.0.join("filler"));
    let (is_full, path) = (AtomicBool::new(false), filler.clone());
    hub.choose(move |request| {
        if request.is_elsewhere && !is_full.swap(true, Ordering::Relaxed) {
            // Until there is no room for one more page.
            let _full = std::fs::write(&path, vec![1; 81 << 20]);
        }
        Fault::None
    });
    let error = pull_tiny(&hub, &store).unwrap_err();
    assert_mentions(&error, &["No space left"]);
    std::fs::remove_file(filler).unwrap();
    pull_tiny(&hub, &store).unwrap();
    assert_is_tiny(&store);
}
