//! The last stage: gives up what is left, makes sure of it, and becomes the program.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use backstop_sandbox::{CallsConfinement, confine_calls_of_contained};
use rustix::fs::Mode;

use super::outer::expected;
use super::privileges::{Somebody, give_up};
use super::wire::{Failure, Layer, Settings, own_socket, send};
use super::{files, limits, mounts};

pub(crate) const NAME: &str = "inner";

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const WORK: &str = "/work";

pub(crate) fn run() -> i32 {
    let Ok(control) = own_socket() else {
        return 64;
    };
    match become_program(&control) {
        Ok(()) => 0,
        Err(failure) => {
            let _nobody_listens = send(&control, &failure);
            1
        }
    }
}

/// Does not return if there is a program, and it can be executed. The socket is closed by that, which says so.
fn become_program(control: &UnixStream) -> Result<(), Failure> {
    let settings: Settings = expected(control)?;
    rustix::process::setsid().layer("session", "beginning one")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir(WORK).layer("root file system", WORK)?;
    let input = match settings.input_bytes {
        0 => "/dev/null",
        _ => mounts::INPUT_FILE,
    };
    let input = File::open(input).layer("root file system", "the program's input")?;
    rustix::stdio::dup2_stdin(&input).layer("root file system", "the program's input")?;
    drop(input);
    // If memory is short, it is the program that has to go. It is asked for as long as it may be.
    fs::write("/proc/self/oom_score_adj", "1000").layer("memory", "being the first to go")?;
    limits::apply(&settings).layer("limits", "setting them")?;
    let somebody = settings.is_another.then_some(Somebody {
        user: settings.user,
        group: settings.group,
    });
    give_up(somebody.as_ref()).layer("capabilities", "giving them up")?;
    let status = fs::read_to_string("/proc/self/status").layer("capabilities", "looking")?;
    let shown = shown(&settings.read_only);
    let mut command = command(&settings);
    files::confine(&shown).layer("landlock", "confining files")?;
    let calls = confine_calls_of_contained().layer("seccomp", "refusing calls")?;
    if let CallsConfinement::Absent { reason } = calls {
        return Err(Failure::of("seccomp", reason));
    }
    make_sure(&status, &settings)?;
    if settings.is_trial {
        return Ok(());
    }
    let error = command.exec();
    Err(Failure {
        is_programs: true,
        ..Failure::of(&settings.program[0].to_string_lossy(), error)
    })
}

/// Both names of what is shown, where links are in them.
fn shown(paths: &[PathBuf]) -> Vec<PathBuf> {
    let actual = paths.iter().filter_map(|path| fs::canonicalize(path).ok());
    paths.iter().cloned().chain(actual).collect()
}

fn command(settings: &Settings) -> Command {
    let mut words = settings.program.iter();
    let program = words.next().map(|program| find(Path::new(program)));
    let mut command = Command::new(program.unwrap_or_default());
    if let Some(name) = settings.program.first() {
        command.arg0(name);
    }
    command.args(words).env_clear().envs([
        ("PATH", PATH),
        ("HOME", "/tmp"),
        ("TMPDIR", "/tmp"),
        ("USER", "job"),
        ("LANG", "C.UTF-8"),
    ]);
    let own = settings.environment.iter();
    command.envs(own.map(|(name, value)| (name, value)));
    command
}

/// By the fixed path, whatever the program's environment says.
fn find(program: &Path) -> PathBuf {
    let is_name = program.components().count() == 1 && program.is_relative();
    let has_slash = program.as_os_str().as_encoded_bytes().contains(&b'/');
    if !is_name || has_slash {
        return program.to_owned();
    }
    let mut places = PATH.split(':').map(|place| Path::new(place).join(program));
    places
        .find(|path| path.is_file())
        // Refused by the kernel, with its own reason.
        .unwrap_or_else(|| Path::new("/usr/bin").join(program))
}

/// What the kernel says of this process, which is what it would say of the program.
fn make_sure(status: &str, settings: &Settings) -> Result<(), Failure> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("", |line| line.trim_start_matches(':').trim())
    };
    let none = |set: &str| !set.is_empty() && set.bytes().all(|digit| digit == b'0');
    let user = settings.user.to_string();
    let holds = [
        ("CapPrm", none(field("CapPrm"))),
        ("CapEff", none(field("CapEff"))),
        ("CapBnd", none(field("CapBnd"))),
        ("CapAmb", none(field("CapAmb"))),
        ("NoNewPrivs", field("NoNewPrivs") == "1"),
        (
            "Uid",
            field("Uid").split_whitespace().all(|number| number == user),
        ),
    ];
    for (name, holds) in holds {
        if !holds {
            return Err(Failure::of(
                "capabilities",
                format_args!("the kernel says {name}: {}", field(name)),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_a_fixed_path() {
        assert_eq!(find(Path::new("sh")), Path::new("/usr/bin/sh"));
        assert_eq!(find(Path::new("/work/a")), Path::new("/work/a"));
        assert_eq!(find(Path::new("./a")), Path::new("./a"));
        assert_eq!(find(Path::new("no-such")), Path::new("/usr/bin/no-such"));
    }
}
