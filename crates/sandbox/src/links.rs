//! Where links lead, since permission to read stays with a file and not with its name.

use std::fs;
use std::path::{Path, PathBuf};

/// How deep below a directory links are looked for; checkpoints are one or two deep.
const DEPTH_MAX: usize = 4;

/// The files that links in this directory, and in those below it, lead to. A link to a directory
/// leads nowhere here: one to `/` in a checkpoint would open everything.
pub(crate) fn files_behind(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(directory, DEPTH_MAX, &mut found);
    found
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_symlink() {
            found.extend(
                fs::canonicalize(path)
                    .ok()
                    .filter(|target| target.is_file()),
            );
        } else if kind.is_dir() && depth > 0 {
            collect(&path, depth - 1, found);
        }
    }
}

/// The directories in which a file's name and the file itself lie. Kubernetes changes a secret by
/// changing where a link beside it leads, to another directory in the same one.
pub(crate) fn directories_of(file: &Path) -> Vec<PathBuf> {
    let actual = fs::canonicalize(file).ok();
    let actual = actual.and_then(|file| file.parent().map(Path::to_owned));
    directory_of_name(file).into_iter().chain(actual).collect()
}

/// The directory in which a file's name lies.
pub(crate) fn directory_of_name(file: &Path) -> Option<PathBuf> {
    let directory = file.parent()?;
    Some(match directory == Path::new("") {
        true => PathBuf::from("."),
        false => directory.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let name = format!("backstop-sandbox-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ignored = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        fs::canonicalize(directory).unwrap()
    }

    #[test]
    fn links_to_files_are_followed_and_links_to_directories_are_not() {
        let root = scratch("links");
        let (blobs, snapshot) = (root.join("blobs"), root.join("snapshot"));
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(snapshot.join("pooling")).unwrap();
        for name in ["weights", "pooling"] {
            fs::write(blobs.join(name), "").unwrap();
        }
        symlink("../blobs/weights", snapshot.join("model.safetensors")).unwrap();
        symlink("../../blobs/pooling", snapshot.join("pooling/config.json")).unwrap();
        symlink("/", snapshot.join("everything")).unwrap();
        symlink("nowhere", snapshot.join("broken")).unwrap();
        let mut found = files_behind(&snapshot);
        found.sort();
        assert_eq!(found, [blobs.join("pooling"), blobs.join("weights")]);
        assert!(files_behind(&blobs.join("weights")).is_empty());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_file_that_is_replaced_lies_in_the_directory_of_its_name_and_in_its_own() {
        let root = scratch("directories");
        let (secret, mounted) = (root.join("secret"), root.join("mounted"));
        fs::create_dir_all(&secret).unwrap();
        fs::create_dir_all(&mounted).unwrap();
        fs::write(secret.join("keys"), "").unwrap();
        symlink("../secret/keys", mounted.join("keys")).unwrap();
        assert_eq!(directories_of(&mounted.join("keys")), [mounted, secret]);
        assert_eq!(directories_of(Path::new("no-such-file")), [Path::new(".")]);
        fs::remove_dir_all(root).unwrap();
    }
}
