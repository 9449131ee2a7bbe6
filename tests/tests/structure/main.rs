//! The shape of the workspace: crates depend downwards only, files stay readable, and documents lead somewhere.

mod documents;
mod offline;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A file longer than this wants to be two.
const FILE_LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn workspace_packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

#[test]
fn crates_depend_downwards_only() {
    let packages = workspace_packages();
    let levels: BTreeMap<&str, u64> = packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().expect("a name");
            let level = package["metadata"]["backstop"]["level"].as_u64();
            (
                name,
                level.unwrap_or_else(|| panic!("{name} has no package.metadata.backstop.level")),
            )
        })
        .collect();
    for package in &packages {
        let name = package["name"].as_str().expect("a name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let dependency_name = dependency["name"].as_str().expect("a name");
            let Some(level) = levels.get(dependency_name) else {
                continue;
            };
            assert!(
                *level < levels[name],
                "{name} (level {}) depends on {dependency_name} (level {level})",
                levels[name],
            );
        }
    }
}

#[test]
fn only_the_workspace_names_versions() {
    for package in workspace_packages() {
        let manifest = package["manifest_path"].as_str().expect("a path");
        let text = std::fs::read_to_string(manifest).expect("readable");
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
                continue;
            }
            let pinned = line.contains("version =") || line.contains("= \"");
            assert!(!(in_dependencies && pinned), "{manifest}: {line}");
        }
    }
}

#[test]
fn files_stay_readable() {
    let mut too_long = Vec::new();
    for directory in ["crates", "kernels", "tests", "benches", "scripts"] {
        visit(&root().join(directory), &mut |path| {
            let readable = path
                .extension()
                .is_some_and(|ending| ending == "rs" || ending == "py");
            let lines = || {
                std::fs::read_to_string(path)
                    .expect("UTF-8")
                    .lines()
                    .count()
            };
            if readable && lines() > FILE_LINES_MAX {
                too_long.push((path.to_owned(), lines()));
            }
        });
    }
    assert!(
        too_long.is_empty(),
        "longer than {FILE_LINES_MAX} lines: {too_long:?}"
    );
}

/// Where code may be unsafe; each block says why.
const UNSAFE: [&str; 2] = ["crates/stacks", "kernels"];

#[test]
fn only_kernels_and_stacks_are_unsafe() {
    let lint = concat!("unsafe", "_code");
    let mut found = Vec::new();
    for directory in ["crates", "kernels", "tests", "benches"] {
        visit(&root().join(directory), &mut |path| {
            let allowed = UNSAFE
                .iter()
                .any(|part| path.starts_with(root().join(part)));
            let is_source = path.extension().is_some_and(|ending| ending == "rs");
            if is_source && !allowed && names_lint(path, lint) {
                found.push(path.to_owned());
            }
        });
    }
    assert!(found.is_empty(), "unsafe code is allowed in {found:?}");
}

/// Whether the lint is named, and not something that ends like it.
fn names_lint(path: &Path, lint: &str) -> bool {
    let text = std::fs::read_to_string(path).expect("UTF-8");
    text.match_indices(lint)
        .any(|(at, _)| !text[..at].ends_with('_'))
}

fn visit(directory: &Path, each: &mut dyn FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("readable").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.')
            || ["target", "__pycache__", "node_modules"].contains(&name.as_str())
        {
            continue;
        }
        if path.is_dir() {
            visit(&path, each)
        } else {
            each(&path)
        }
    }
}
