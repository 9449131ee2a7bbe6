//! Tests in a container, by podman or docker: no network, no capabilities, nothing written but memory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::QualifyError;
use crate::subprocess::{Bounds, Stopped, explain, listen};

use super::contained::{Allowance, PROCESSES_MAX, Ran, Runs, Slots, explain_status};

const ENGINES: &[&str] = &["podman", "docker"];
const OUTPUT_BYTES_MAX: u64 = 4 << 20;
/// What starting and removing a container may take besides.
const ENGINE_TIME_MAX: Duration = Duration::from_secs(60);
/// The tree is copied into memory, since a mounted directory has no limit. Before that it says the container's name, for
/// else an engine that failed could not be told from a program.
const COPY: &str = "echo \"$0\" >&2; cp -RP /tree/. /work/ && cd /work && exec \"$@\"";

/// An image, and what runs it.
pub(super) struct Container {
    engine: PathBuf,
    image: String,
    allowance: Allowance,
    slots: Slots,
}

impl Container {
    /// An image that is there already; nothing is fetched.
    pub(super) fn new(image: &str, allowance: Allowance) -> Result<Self, QualifyError> {
        if image.is_empty() || image.starts_with('-') {
            return Err(QualifyError::new(format!(
                "{image:?} is no name of an image"
            )));
        }
        let mut reasons = Vec::new();
        for engine in ENGINES {
            let asked = listen(
                plain(Path::new(engine)).args(["image", "inspect", "--format", "{{.Id}}", image]),
                Vec::new(),
                bounds(ENGINE_TIME_MAX),
            );
            match asked {
                Ok(said) if said.status.success() => {
                    return Ok(Self {
                        engine: engine.into(),
                        // By its digest, so that it stays the same.
                        image: String::from_utf8_lossy(&said.output).trim().to_owned(),
                        allowance,
                        slots: Slots::new(),
                    });
                }
                Ok(said) => reasons.push(format!("{engine}: {}", said.errors)),
                Err(error) => reasons.push(format!("{engine}: {error}")),
            }
        }
        Err(QualifyError::new(format!(
            "no engine has the image {image:?}: {}",
            reasons.join("; ")
        )))
    }

    /// The image's digest.
    pub(super) fn image(&self) -> &str {
        &self.image
    }

    fn failed(&self, why: &str) -> QualifyError {
        QualifyError::new(format!("{}: {why}", self.engine.display()))
    }
}

impl Runs for Container {
    fn run(&self, directory: &Path, argv: &[OsString]) -> Result<Ran, QualifyError> {
        let _slot = self.slots.take();
        let random = getrandom::u64()
            .map_err(|error| QualifyError::new(format!("no random numbers: {error}")))?;
        let running = Running {
            engine: &self.engine,
            name: format!("backstop-{random:016x}"),
        };
        let memory = self.allowance.memory_bytes;
        let mut mount = OsString::from(directory);
        mount.push(":/tree:ro");
        let mut command = plain(&self.engine);
        command
            .args(["run", "--rm", "--pull", "never", "--name", &running.name])
            .args(["--network", "none", "--read-only", "--cap-drop", "ALL"])
            .args(["--security-opt", "no-new-privileges"])
            .arg(format!("--pids-limit={PROCESSES_MAX}"))
            .args(["--ulimit", "nofile=4096:4096"])
            .arg(format!("--memory={memory}"))
            .arg(format!("--memory-swap={memory}"))
            .arg(format!(
                "--tmpfs=/work:rw,exec,nosuid,nodev,size={memory},mode=1777"
            ))
            .arg(format!(
                "--tmpfs=/tmp:rw,exec,nosuid,nodev,size={memory},mode=1777"
            ))
            .args(["--env", "HOME=/tmp", "--env", "CI=true"])
            .args(["--env", "PYTHONDONTWRITEBYTECODE=1"])
            .arg("--volume")
            .arg(mount)
            .args(["--workdir", "/work", "--entrypoint", "/bin/sh", &self.image])
            .args(["-c", COPY, &running.name])
            .args(argv);
        let said = match listen(&mut command, Vec::new(), bounds(self.allowance.time)) {
            Ok(said) => said,
            Err(Stopped::TooSlow(_)) => {
                return Ok(Ran::new(false, "took too long".into(), b"", b""));
            }
            Err(Stopped::TooMuch(_)) => {
                return Ok(Ran::new(false, "wrote too much".into(), b"", b""));
            }
            Err(error) => return Err(self.failed(&error.to_string())),
        };
        let Some((_, errors)) = said.errors.split_once(&running.name) else {
            return Err(self.failed(&said.errors));
        };
        let ended = said
            .status
            .code()
            .map_or_else(|| explain(said.status), explain_status);
        Ok(Ran::new(
            said.status.success(),
            ended,
            &said.output,
            errors.trim().as_bytes(),
        ))
    }
}

/// A container, which goes when this is dropped, whatever became of the client.
struct Running<'a> {
    engine: &'a Path,
    name: String,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut command = plain(self.engine);
        command.args(["rm", "--force", "--volumes", &self.name]);
        // As a rule it is gone already.
        if let Err(error) = listen(&mut command, Vec::new(), bounds(ENGINE_TIME_MAX)) {
            tracing::warn!("the container {} may be left behind: {error}", self.name);
        }
    }
}

/// An engine with what it needs of this machine, and nothing of the rest.
fn plain(engine: &Path) -> Command {
    let mut command = Command::new(engine);
    command.env_clear().current_dir("/");
    for name in [
        "PATH",
        "HOME",
        "XDG_RUNTIME_DIR",
        "DOCKER_HOST",
        "CONTAINER_HOST",
        "USER",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

fn bounds(time: Duration) -> Bounds {
    Bounds {
        time,
        output_bytes: OUTPUT_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::scratch::Scratch;

    /// In an engine's place: writes down how it is called, and runs what comes behind the image, as far as `COPY` goes.
    const ENGINE: &str = "#!/bin/sh
echo \"$@\" >> \"$(dirname \"$0\")/calls\"
[ \"$1\" = run ] || exit 0
for word in \"$@\"; do case $word in broken) echo 'no such thing' >&2; exit 125;; esac; done
while [ \"$1\" != sha256:0 ]; do shift; done
shift 3
echo \"warning: something\" >&2
echo \"$1\" >&2
shift
exec \"$@\"
";

    fn container(scratch: &Scratch, time: Duration) -> Container {
        let engine = scratch.path().join("engine");
        std::fs::write(&engine, ENGINE).unwrap();
        std::fs::set_permissions(&engine, std::fs::Permissions::from_mode(0o755)).unwrap();
        Container {
            engine,
            image: "sha256:0".into(),
            allowance: Allowance {
                time,
                memory_bytes: 1 << 30,
            },
            slots: Slots::new(),
        }
    }

    fn argv(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn calls(scratch: &Scratch) -> String {
        std::fs::read_to_string(scratch.path().join("calls")).unwrap()
    }

    #[test]
    fn a_container_has_no_network_and_goes_afterwards() {
        let scratch = Scratch::make("engine").unwrap();
        let container = container(&scratch, Duration::from_secs(60));
        let script = argv(&["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]);
        let ran = container.run(scratch.path(), &script).unwrap();
        assert!(!ran.well);
        assert_eq!(
            (ran.ended.as_str(), ran.said.as_str()),
            (
                "ended with status 3",
                "out

err"
            )
        );
        let calls = calls(&scratch);
        for part in [
            "--network none",
            "--read-only",
            "--cap-drop ALL",
            ":/tree:ro",
            "--pull never",
        ] {
            assert!(calls.contains(part), "{calls}");
        }
        assert!(
            calls
                .lines()
                .last()
                .unwrap()
                .starts_with("rm --force --volumes backstop-")
        );
    }

    #[test]
    fn a_run_that_goes_on_is_stopped_and_removed() {
        let scratch = Scratch::make("engine").unwrap();
        let container = container(&scratch, Duration::from_millis(500));
        let ran = container
            .run(scratch.path(), &argv(&["sleep", "600"]))
            .unwrap();
        assert_eq!(ran.ended, "took too long");
        assert!(calls(&scratch).contains("rm --force"));
    }

    #[test]
    fn an_engine_that_fails_is_no_failed_test() {
        let scratch = Scratch::make("engine").unwrap();
        let container = container(&scratch, Duration::from_secs(60));
        let error = container
            .run(scratch.path(), &argv(&["broken"]))
            .unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
        assert!(Container::new("-v", container.allowance).is_err());
    }
}
