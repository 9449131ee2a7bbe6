//! Reads a repository that nobody trusts, through `git`.
//!
//! Its own configuration, hooks, attributes and filters have no say: objects are read through a bare repository of ours,
//! which borrows them, and files are written by this program. Nothing is fetched, nothing in the repository is changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::QualifyError;
use crate::scratch::Scratch;
use crate::subprocess::{Bounds, explain, listen};

use super::paths;

const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(120),
    output_bytes: 64 << 20,
};
/// Contents that are read at once.
const BATCH_BYTES: u64 = 16 << 20;
const TREE_FILES_MAX: usize = 50_000;
const TREE_BYTES_MAX: u64 = 512 << 20;
const BLOB_BYTES_MAX: u64 = 32 << 20;
const SHALLOW_BYTES_MAX: u64 = 16 << 20;
/// As on the command line; they win over what a repository says.
const SETTINGS: &[(&str, &str)] = &[
    ("safe.directory", "*"),
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.quotePath", "false"),
    ("core.pager", "cat"),
    ("protocol.allow", "never"),
    ("log.showSignature", "false"),
];

/// A repository, and where it is read from.
pub(super) struct Repository {
    borrowing: Scratch,
    /// The commit that was asked for.
    pub(super) head: String,
}

/// A commit with one parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) message: String,
}

/// What a commit did to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) path: String,
    /// Lines that are new and lines that are gone; none of what is no text.
    pub(super) lines: Option<u64>,
}

/// A file in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Executable,
    Link,
    Submodule,
}

/// A commit's files by their paths.
pub(super) type Tree = BTreeMap<String, Entry>;

impl Repository {
    /// Opens what lies at a path, at a revision.
    pub(super) fn open(path: &Path, revision: &str) -> Result<Self, QualifyError> {
        let path = path
            .canonicalize()
            .map_err(|error| QualifyError::at(path, error))?;
        let asked = |arguments: &[&str]| -> Result<String, QualifyError> {
            let mut command = git();
            command
                .arg("-C")
                .arg(&path)
                .arg("rev-parse")
                .args(arguments);
            if let Some(above) = path.parent() {
                command.env("GIT_CEILING_DIRECTORIES", above);
            }
            Ok(text(run(&mut command, Vec::new())?)?.trim().to_owned())
        };
        let format =
            asked(&["--show-object-format"]).map_err(|error| QualifyError::at(&path, error))?;
        let of_path = |name: &str| asked(&["--path-format=absolute", "--git-path", name]);
        let objects = of_path("objects")?;
        if objects.contains('\n') || objects.starts_with(['#', '"']) {
            return Err(QualifyError::at(
                &path,
                "git cannot borrow from a path like this",
            ));
        }
        let commit = format!("{revision}^{{commit}}");
        let head = asked(&["--verify", "--quiet", "--end-of-options", &commit])
            .map_err(|_| QualifyError::at(&path, format!("there is no commit {revision:?}")))?;
        let borrowing = Scratch::make("repository")?;
        let mut init = git();
        init.args([
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--object-format",
            &format,
        ])
        .arg(borrowing.path());
        run(&mut init, Vec::new())?;
        let write = |name: &str, content: &[u8]| {
            let file = borrowing.path().join(name);
            std::fs::write(&file, content).map_err(|error| QualifyError::at(&file, error))
        };
        std::fs::create_dir_all(borrowing.path().join("objects/info"))
            .map_err(|error| QualifyError::at(borrowing.path(), error))?;
        write("objects/info/alternates", format!("{objects}\n").as_bytes())?;
        let shallow = PathBuf::from(of_path("shallow")?);
        if shallow.is_file() {
            let content = backstop_input::read_file(&shallow, SHALLOW_BYTES_MAX);
            write(
                "shallow",
                &content.map_err(|error| QualifyError::at(&shallow, error))?,
            )?;
        }
        Ok(Self { borrowing, head })
    }

    /// Commits with one parent, the newest first.
    pub(super) fn commits(
        &self,
        since: Option<&str>,
        commits_max: u32,
    ) -> Result<Vec<Commit>, QualifyError> {
        let mut command = self.git();
        command
            .args(["log", "-z", "--format=%H%n%P%n%B", "--topo-order"])
            .args([
                "--no-merges",
                "--no-show-signature",
                "--no-notes",
                "--no-patch",
            ])
            .arg(format!("--max-count={commits_max}"));
        if let Some(since) = since {
            command.arg(format!("--since={since}"));
        }
        command.args(["--end-of-options", &self.head]);
        let listed = String::from_utf8_lossy(&run(&mut command, Vec::new())?).into_owned();
        let commit = |record: &str| {
            let (id, rest) = record.split_once('\n')?;
            let (parent, message) = rest.split_once('\n')?;
            // A first commit has none.
            (!parent.is_empty()).then(|| Commit {
                id: id.to_owned(),
                parent: parent.to_owned(),
                message: message.trim().to_owned(),
            })
        };
        Ok(listed.split('\0').filter_map(commit).collect())
    }

    /// What a commit did.
    pub(super) fn changes(&self, commit: &Commit) -> Result<Vec<Change>, QualifyError> {
        let mut command = self.git();
        command
            .args(["diff-tree", "-r", "-z", "--numstat", "--no-renames"])
            .args(["--no-ext-diff", "--no-textconv", "--end-of-options"])
            .args([&commit.parent, &commit.id]);
        let listed = run(&mut command, Vec::new())?;
        let change = |record: &[u8]| {
            let record = text(record.to_vec())?;
            let mut parts = record.splitn(3, '\t');
            let mut next = || parts.next().unwrap_or_default().to_owned();
            let (new, gone, path) = (next(), next(), next());
            paths::check(&path).map_err(QualifyError::new)?;
            let number = |text: &str| text.parse::<u64>().ok();
            Ok(Change {
                lines: number(&new)
                    .zip(number(&gone))
                    .map(|(new, gone)| new + gone),
                path,
            })
        };
        records(&listed).map(change).collect()
    }

    /// A commit's files.
    pub(super) fn tree(&self, commit: &str) -> Result<Tree, QualifyError> {
        let mut command = self.git();
        command.args([
            "ls-tree",
            "-r",
            "-z",
            "-l",
            "--full-tree",
            "--end-of-options",
            commit,
        ]);
        let listed = run(&mut command, Vec::new())?;
        let mut tree = Tree::new();
        let mut bytes = 0_u64;
        for record in records(&listed) {
            let (path, entry) = entry(record)?;
            bytes = bytes.saturating_add(entry.bytes);
            if entry.bytes > BLOB_BYTES_MAX
                || bytes > TREE_BYTES_MAX
                || tree.len() >= TREE_FILES_MAX
            {
                return Err(QualifyError::new(format!(
                    "its files are more than {TREE_FILES_MAX}, or one is larger than {} MiB, or all are larger than {} MiB",
                    BLOB_BYTES_MAX >> 20,
                    TREE_BYTES_MAX >> 20
                )));
            }
            tree.insert(path, entry);
        }
        Ok(tree)
    }

    /// Hands over the content of these, in their order.
    pub(super) fn contents<'a>(
        &self,
        entries: &[(&'a str, &'a Entry)],
        mut take: impl FnMut(&'a str, &'a Entry, &[u8]) -> Result<(), QualifyError>,
    ) -> Result<(), QualifyError> {
        let mut rest = entries;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|(_, entry)| {
                bytes += entry.bytes;
                bytes <= BATCH_BYTES
            });
            let (batch, later) = rest.split_at(fitting.count().max(1));
            rest = later;
            let ids: String = batch
                .iter()
                .map(|(_, entry)| format!("{}\n", entry.id))
                .collect();
            let mut command = self.git();
            command.args(["cat-file", "--batch"]);
            let listed = run(&mut command, ids.into_bytes())?;
            let mut left = listed.as_slice();
            for (path, entry) in batch {
                let (content, after) = content(left, entry).ok_or_else(|| {
                    QualifyError::new(format!("{path}: git does not have its content"))
                })?;
                take(path, entry, content)?;
                left = after;
            }
        }
        Ok(())
    }

    fn git(&self) -> Command {
        let mut command = git();
        command.arg("--git-dir").arg(self.borrowing.path());
        command
    }
}

/// `git`, which knows nothing of whoever runs it.
fn git() -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C")
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        // No protocol at all.
        .env("GIT_ALLOW_PROTOCOL", "none")
        .env("GIT_CONFIG_COUNT", SETTINGS.len().to_string())
        .current_dir("/");
    for (number, (key, value)) in SETTINGS.iter().enumerate() {
        command
            .env(format!("GIT_CONFIG_KEY_{number}"), key)
            .env(format!("GIT_CONFIG_VALUE_{number}"), value);
    }
    command.arg("--no-pager");
    command
}

fn run(command: &mut Command, input: Vec<u8>) -> Result<Vec<u8>, QualifyError> {
    let what = command
        .get_args()
        .find(|argument| !matches!(argument.as_encoded_bytes().first(), Some(b'-' | b'/')))
        .unwrap_or(OsStr::new("git"))
        .to_string_lossy()
        .into_owned();
    let said = listen(command, input, BOUNDS)
        .map_err(|error| QualifyError::new(format!("git ({what}): {error}")))?;
    if !said.status.success() {
        return Err(QualifyError::new(format!(
            "git ({what}) ended with {}: {}",
            explain(said.status),
            said.errors
        )));
    }
    Ok(said.output)
}

fn records(listed: &[u8]) -> impl Iterator<Item = &[u8]> {
    listed
        .split(|byte| *byte == 0)
        .filter(|record| !record.is_empty())
}

/// `MODE TYPE ID SIZE\tPATH`.
fn entry(record: &[u8]) -> Result<(String, Entry), QualifyError> {
    let record = text(record.to_vec())?;
    let broken = || QualifyError::new(format!("git listed a file as {record:?}"));
    let (facts, path) = record.split_once('\t').ok_or_else(broken)?;
    paths::check(path).map_err(QualifyError::new)?;
    let facts: Vec<&str> = facts.split_whitespace().collect();
    let [mode, _, id, bytes] = facts[..] else {
        return Err(broken());
    };
    let kind = match mode {
        "100644" | "100664" => Kind::File,
        "100755" => Kind::Executable,
        "120000" => Kind::Link,
        "160000" => Kind::Submodule,
        _ => return Err(broken()),
    };
    let bytes = match kind {
        Kind::Submodule => 0,
        _ => bytes.parse().map_err(|_| broken())?,
    };
    let id = id.to_owned();
    Ok((path.to_owned(), Entry { kind, id, bytes }))
}

/// `ID blob SIZE\n`, the content, `\n`.
fn content<'a>(listed: &'a [u8], entry: &Entry) -> Option<(&'a [u8], &'a [u8])> {
    let head = format!("{} blob {}\n", entry.id, entry.bytes);
    let rest = listed.strip_prefix(head.as_bytes())?;
    let (content, rest) = rest.split_at_checked(usize::try_from(entry.bytes).ok()?)?;
    Some((content, rest.strip_prefix(b"\n")?))
}

fn text(bytes: Vec<u8>) -> Result<String, QualifyError> {
    String::from_utf8(bytes).map_err(|_| QualifyError::new("a path of its files is not UTF-8"))
}
