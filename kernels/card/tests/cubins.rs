//! The compiled kernels belong to their sources and to the library around them.
#![cfg(feature = "nvidia")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use backstop_card::cubins::{CUBINS, Cubin};

/// A place in `kernels`.
fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of the kernels that a compiled file has.
fn kernels(cubin: &Cubin) -> BTreeSet<String> {
    let kernels = cubin.kernels().expect("the compiled kernels are whole");
    kernels.into_iter().map(|kernel| kernel.name).collect()
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
fn every_cubin_is_committed_and_made_of_the_present_sources() {
    for Cubin {
        name, committed, ..
    } in CUBINS
    {
        assert!(
            committed,
            "kernels/cuda/cubins/{name}.cubin is missing or not of the present sources: run \
             scripts/card/cubins and commit what it writes"
        );
    }
}

#[test]
fn the_manifest_lists_what_there_is() {
    let manifest: toml::Table = read(&directory("cuda/cubins/manifest.toml"))
        .parse()
        .expect("the manifest is TOML");
    let listed = manifest["cubins"]
        .as_table()
        .expect("it has a table of cubins");
    let names: Vec<&str> = listed.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        CUBINS.iter().map(|cubin| cubin.name).collect::<Vec<_>>()
    );
    for cubin in CUBINS {
        let listed = listed[cubin.name]["kernels"]
            .as_table()
            .expect("a table of kernels");
        let listed: BTreeSet<String> = listed.keys().cloned().collect();
        assert_eq!(listed, kernels(cubin), "{}", cubin.name);
    }
}

#[test]
fn every_kernel_is_launched_somewhere() {
    assert!(!CUBINS.is_empty());
    let mut text = String::new();
    for sources in ["card/src", "proof/src"] {
        rust_text(&directory(sources), &mut text);
    }
    for name in CUBINS.iter().flat_map(kernels) {
        assert!(
            text.contains(&format!("\"{name}\"")),
            "nothing launches {name}"
        );
    }
}
