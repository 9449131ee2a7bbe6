//! Hostile programs, each with what must become of it. They lie in `hostile/`, and say of every attempt whether it was
//! refused; those that cannot say anything any more are known by how they ended.

#![cfg(target_os = "linux")]

#[path = "hostile/alone.rs"]
mod alone;
mod common;
#[path = "hostile/table.rs"]
mod table;

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use backstop_isolation::{Ended, Finished};

use common::{ISOLATION, job, text, words};
use table::{End, HOSTILE, Hostile};

/// What of the host the programs try to reach.
struct Host {
    directory: PathBuf,
    abstract_name: String,
    port: u16,
    /// As long as these live, there is somebody to reach.
    _listeners: (std::net::TcpListener, UnixListener, UnixListener),
}

const SECRET: &str = "the host's secret";

static HOST: LazyLock<Host> = LazyLock::new(|| host().expect("a host"));

fn host() -> io::Result<Host> {
    let abstract_name = format!("backstop-hostile-{}", std::process::id());
    let directory = std::env::temp_dir().join(&abstract_name);
    let _there_is_none = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("secret"), SECRET)?;
    let tcp = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = tcp.local_addr()?.port();
    let address = SocketAddr::from_abstract_name(&abstract_name)?;
    let hidden = UnixListener::bind_addr(&address)?;
    let file = UnixListener::bind(directory.join("socket"))?;
    Ok(Host {
        directory,
        abstract_name,
        port,
        _listeners: (tcp, hidden, file),
    })
}

fn run(hostile: &Hostile) -> Finished {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let words = words(hostile.program);
    let mut job = job(&words, Some(&programs));
    let file = |name: &str| HOST.directory.join(name).display().to_string();
    job.environment = [
        ("PORT", HOST.port.to_string()),
        ("ABSTRACT", HOST.abstract_name.clone()),
        ("SECRET", file("secret")),
        ("SOCKET", file("socket")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    (hostile.limits)(&mut job.limits);
    let finished = ISOLATION.run(&job);
    finished.unwrap_or_else(|error| panic!("{:?}: {error}", hostile.program))
}

/// How many of the table run at once.
const AT_ONCE: usize = 2;

fn faults_of(hostile: &Hostile) -> Vec<String> {
    let finished = run(hostile);
    let said = text(&finished);
    let mut faults = Vec::new();
    let memory_is_grouped = ISOLATION
        .layers()
        .iter()
        .any(|layer| layer.starts_with("control group"));
    let ended = finished.ended;
    let as_expected = match hostile.end {
        End::Is(expected) => ended == expected,
        End::BySignal => matches!(ended, Ended::Killed(_)),
        // Without a control group, an allocation may fail before all of them together are too many.
        End::OutOfMemory => {
            ended == Ended::OutOfMemory || (!memory_is_grouped && said.contains("MemoryError"))
        }
    };
    if !as_expected {
        faults.push(format!("it ended as {ended:?}, not {:?}", hostile.end));
    }
    for word in ["ESCAPED", "UNEXPECTED", "Traceback", SECRET] {
        let is_told = word == "Traceback" && said.contains("MemoryError");
        if said.contains(word) && !is_told {
            faults.push(format!("it says {word}"));
        }
    }
    for expected in hostile.says {
        if !said.contains(expected) {
            faults.push(format!("it does not say {expected:?}"));
        }
    }
    let name = hostile.program.join(" ");
    let told = |fault: String| format!("{} ({name}): {fault}\n{said}", hostile.what);
    faults.into_iter().map(told).collect()
}

#[test]
fn every_hostile_program_is_contained() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let faults: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut faults = Vec::new();
            while let Some(hostile) =
                HOSTILE.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            {
                faults.extend(faults_of(hostile));
            }
            faults
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let faults = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        faults.collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_program_in_the_directory_is_in_the_table() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    for entry in std::fs::read_dir(programs).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_program = name.ends_with(".py") || name.ends_with(".sh");
        let is_run = |hostile: &Hostile| hostile.program.iter().any(|word| word.ends_with(&name));
        let is_known = HOSTILE.iter().any(is_run) || alone::PROGRAMS.contains(&name.as_str());
        assert!(!is_program || is_known, "{name}");
    }
    assert!(HOSTILE.len() >= 25);
}
