//! Copies a directory to where a program may change it. What lies in it may be hostile as well: links are copied as links,
//! never followed, and what is neither file, directory nor link is left out.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Copies what lies in `from` to the empty directory `to`, and gives it to the owner.
pub(crate) fn tree(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    // No recursion, for the depth is not ours to bound.
    let mut waiting: Vec<(PathBuf, PathBuf)> = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = waiting.pop() {
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                fs::create_dir(&target)?;
                waiting.push((entry.path(), target.clone()));
            } else if kind.is_symlink() {
                symlink(fs::read_link(entry.path())?, &target)?;
            } else if kind.is_file() {
                file(&entry.path(), &target)?;
            } else {
                continue;
            }
            if let Some((user, group)) = owner {
                lchown(&target, Some(user), Some(group))?;
            }
        }
    }
    Ok(())
}

/// With its time, by which build tools and Python know what is stale.
fn file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(from)?;
    let about = source.metadata()?;
    let mut target = File::create_new(to)?;
    io::copy(&mut source, &mut target)?;
    target.set_permissions(Permissions::from_mode(about.permissions().mode() & 0o777))?;
    target.set_modified(about.modified()?)
}
