//! Ordinary programs run as they would anywhere.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use backstop_isolation::{Ended, Finished, Isolation, IsolationError};

use common::{ISOLATION, PYTHON, job, text, words};

fn run(program: &[&str]) -> Finished {
    let program = words(program);
    ISOLATION.run(&job(&program, None)).expect("it runs")
}

fn python(source: &str) -> Finished {
    run(&["python", "-c", source])
}

fn scratch(name: &str) -> PathBuf {
    let name = format!("backstop-isolation-{}-{name}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let _there_is_none = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    fs::canonicalize(directory).expect("its path")
}

fn assert_prints(finished: &Finished, expected: &str) {
    assert_eq!(finished.ended, Ended::Exited(0), "{}", text(finished));
    assert_eq!(String::from_utf8_lossy(&finished.output), expected);
}

#[test]
fn python_prints_and_exits() {
    let finished = python("print('hello'); import sys; print('oh', file=sys.stderr)");
    assert_prints(&finished, "hello\n");
    assert_eq!(finished.errors, b"oh\n");
    assert!(finished.seconds > 0.0 && finished.seconds < 60.0);
    assert_eq!(python("raise SystemExit(7)").ended, Ended::Exited(7));
    assert_eq!(
        python("import os; os.kill(os.getpid(), 15)").ended,
        Ended::Killed(15)
    );
}

#[test]
fn input_arguments_and_environment_arrive() {
    let source = "import os, sys; print(sys.stdin.read(), sys.argv[1:], os.environ['COLOUR'], os.getcwd(), os.environ['HOME'])";
    let program = words(&["python", "-c", source, "a b", ""]);
    let mut job = job(&program, None);
    job.input = b"from outside";
    job.environment = vec![("COLOUR".to_owned(), "blue".to_owned())];
    let finished = ISOLATION.run(&job).unwrap();
    assert_prints(&finished, "from outside ['a b', ''] blue /work /tmp\n");
}

#[test]
fn a_long_input_and_a_long_output_arrive_whole() {
    let source = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data[:200_000]); print(len(data), file=sys.stderr)";
    let program = words(&["python", "-c", source]);
    let input: Vec<u8> = (0..8 << 20).map(|place| (place % 251) as u8).collect();
    let mut job = job(&program, None);
    job.input = &input;
    let finished = ISOLATION.run(&job).unwrap();
    assert_eq!(finished.ended, Ended::Exited(0), "{}", text(&finished));
    assert_eq!(finished.output, input[..200_000]);
    assert_eq!(finished.errors, b"8388608\n");
}

#[test]
fn a_directory_is_copied_and_the_original_stays() {
    let directory = scratch("directory");
    fs::create_dir(directory.join("package")).unwrap();
    fs::write(directory.join("package/__init__.py"), "VALUE = 41").unwrap();
    fs::write(directory.join("run"), "#!/bin/sh\nexec \"$@\"\n").unwrap();
    fs::set_permissions(directory.join("run"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("package/__init__.py", directory.join("link.py")).unwrap();
    let source = "import link, os, package
open('package/__init__.py', 'w').write('VALUE = 0')
open('new', 'w').write('x')
os.remove('run')
print(package.VALUE + 1, os.path.islink('link.py'), oct(os.stat('package').st_mode), sorted(os.listdir()))";
    let program = words(&["./run", PYTHON.program.to_str().unwrap(), "-Bc", source]);
    let finished = ISOLATION.run(&job(&program, Some(&directory))).unwrap();
    let expected = "42 True 0o40755 ['link.py', 'new', 'package']\n";
    assert_prints(&finished, expected);
    let kept = fs::read_to_string(directory.join("package/__init__.py")).unwrap();
    assert_eq!(kept, "VALUE = 41");
    assert!(directory.join("run").exists() && !directory.join("new").exists());
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn what_is_shown_can_be_read_and_not_written() {
    let shown = scratch("shown");
    fs::write(shown.join("file"), "seen").unwrap();
    let other = scratch("link").join("name");
    symlink(&shown, &other).unwrap();
    let source = "import sys
for directory in sys.argv[1:]:
    print(open(directory + '/file').read())
    try: open(directory + '/file', 'w')
    except OSError as error: print(error.errno)";
    let program = words(&[
        "python",
        "-c",
        source,
        shown.to_str().unwrap(),
        other.to_str().unwrap(),
    ]);
    let mut job = job(&program, None);
    job.read_only.extend([shown.clone(), other.clone()]);
    let finished = ISOLATION.run(&job).unwrap();
    // EROFS by the mount, before Landlock would say EACCES.
    assert_prints(&finished, "seen\n30\nseen\n30\n");
    fs::remove_dir_all(shown).unwrap();
    fs::remove_dir_all(other.parent().unwrap()).unwrap();
}

#[test]
fn programs_use_processes_pipes_temporary_files_and_their_own_loopback() {
    let source = "
import multiprocessing, socket, subprocess, sys, tempfile, threading
with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-1, 2]))
with tempfile.TemporaryDirectory() as place: print(place.startswith('/tmp/'))
print(subprocess.run(['sh', '-c', 'echo a | tr a b'], capture_output=True, text=True).stdout, end='')
server = socket.create_server(('127.0.0.1', 0))
thread = threading.Thread(target=lambda: server.accept()[0].sendall(b'by loopback'))
thread.start()
print(socket.create_connection(server.getsockname()).recv(99).decode())
thread.join()
a, b = socket.socketpair(); a.send(b'pair'); print(b.recv(9).decode())
print(socket.gethostname(), len(open('/proc/cpuinfo').read()) > 0, open('/etc/passwd').read().count('job'))
";
    let expected = "[1, 2]\nTrue\nb\nby loopback\npair\nisolated True 1\n";
    assert_prints(&python(source), expected);
}

#[test]
fn a_program_that_is_not_there_is_an_error_that_names_it() {
    let program = words(&["no-such-program"]);
    let error = ISOLATION.run(&job(&program, None)).unwrap_err();
    assert!(matches!(error, IsolationError::Program { .. }), "{error:?}");
    assert!(error.to_string().starts_with("no-such-program"), "{error}");
    let program = words(&["true"]);
    let mut missing = job(&program, None);
    missing.read_only.push("/no/such/directory".into());
    let error = ISOLATION.run(&missing).unwrap_err().to_string();
    assert!(error.contains("/no/such/directory"), "{error}");
}

#[test]
fn a_directory_that_is_larger_than_the_disk_is_an_error() {
    let directory = scratch("large");
    fs::write(directory.join("file"), vec![0; 17 << 20]).unwrap();
    let program = words(&["true"]);
    let error = ISOLATION.run(&job(&program, Some(&directory))).unwrap_err();
    assert!(error.to_string().contains("disk"), "{error}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn many_run_at_once() {
    let outputs: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|number| scope.spawn(move || run(&["sh", "-c", &format!("echo {number}")])))
            .collect();
        let finished = threads.into_iter().map(|thread| thread.join().unwrap());
        finished.map(|finished| text(&finished)).collect()
    });
    assert_eq!(outputs, ["0\n", "1\n", "2\n", "3\n", "4\n", "5\n"]);
}

#[test]
fn a_program_that_is_no_stage_contains_nothing() {
    for program in ["/bin/true", "/no/such/program"] {
        let unavailable = Isolation::by(program.into()).unwrap_err();
        assert_eq!(unavailable.layer, "stages", "{unavailable}");
    }
}

#[test]
fn where_the_kernel_refuses_namespaces_the_error_says_so_and_nothing_is_run() {
    // Within isolation there are no further namespaces, as in most containers.
    let stages = PathBuf::from(env!("CARGO_BIN_EXE_backstop-contain"));
    let program = words(&[stages.to_str().unwrap()]);
    let mut job = job(&program, None);
    job.read_only.push(stages);
    job.limits.wall = Duration::from_secs(20);
    let finished = ISOLATION.run(&job).unwrap();
    assert_eq!(finished.ended, Ended::Exited(1));
    let said = text(&finished);
    for part in [
        "none is run",
        "namespaces: unshare: EPERM",
        "--security-opt",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn the_layers_are_named() {
    let layers = ISOLATION.layers();
    for layer in ["user namespace", "network namespace", "seccomp", "landlock"] {
        assert!(layers.contains(&layer), "{layers:?}");
    }
    let memory = layers.iter().filter(|layer| layer.contains("all memory"));
    assert_eq!(memory.count(), 1, "{layers:?}");
}
