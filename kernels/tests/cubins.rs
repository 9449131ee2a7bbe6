//! The compiled kernels belong to their sources.
#![cfg(feature = "cuda")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use backstop_kernels::cuda::cubins::{CUBINS, Cubin};

/// A directory of this crate.
fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of the kernels that a compiled file has.
fn kernels(cubin: &Cubin) -> BTreeSet<String> {
    let kernels = cubin.kernels().expect("the compiled kernels are whole");
    kernels.into_iter().map(|kernel| kernel.name).collect()
}

/// Names of the kernels that a source defines: `KERNEL(name, …)`, perhaps through a macro.
fn defined(source: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let (macro_name, rest) = line.split_once('(')?;
        let is_macro = macro_name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c == '_');
        let is_kernel = is_macro && macro_name.ends_with("KERNEL");
        let (name, _) = rest.split_once(',')?;
        is_kernel.then(|| name.trim().to_owned())
    };
    source.lines().filter_map(name).collect()
}

/// All Rust sources below a directory, one after the other.
fn rust_text(directory: &Path, text: &mut String) {
    let entries = fs::read_dir(directory).expect("the sources are readable");
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            rust_text(&path, text);
        } else {
            text.push_str(&read(&path));
        }
    }
}

#[test]
fn every_kernel_of_the_sources_is_compiled_and_no_other() {
    assert!(!CUBINS.is_empty());
    for cubin in CUBINS {
        let source = read(&directory("cuda").join(cubin.name).with_extension("cu"));
        assert_eq!(kernels(cubin), defined(&source), "{}.cu", cubin.name);
    }
}

#[test]
fn every_kernel_is_launched_somewhere() {
    let mut text = String::new();
    rust_text(&directory("src"), &mut text);
    for name in CUBINS.iter().flat_map(kernels) {
        assert!(
            text.contains(&format!("\"{name}\"")),
            "nothing launches {name}"
        );
    }
}
