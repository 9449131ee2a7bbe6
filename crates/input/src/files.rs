//! Small files: read whole, if they are what they should be.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// The bytes of a regular file of at most `bytes_max`. A device, a pipe, a directory and a longer
/// file are errors that say so; none of them is waited for or read to its end.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // To open a pipe would be to wait for somebody who writes into it.
    check(&fs::metadata(path)?, bytes_max)?;
    let file = File::open(path)?;
    let status = file.metadata()?;
    check(&status, bytes_max)?;
    let mut bytes = Vec::with_capacity(usize::try_from(status.len()).unwrap_or(0));
    // A file may grow while it is read, and some have no length of their own (`/proc`); one byte
    // more than allowed shows that there is more.
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_long(bytes_max));
    }
    Ok(bytes)
}

/// As [`read_file`], for text.
pub fn read_text_file(path: &Path, bytes_max: u64) -> io::Result<String> {
    let bytes = read_file(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|error| invalid(format!("not UTF-8: {}", error.utf8_error())))
}

fn check(status: &Metadata, bytes_max: u64) -> io::Result<()> {
    if !status.is_file() {
        return Err(invalid("not a regular file".to_owned()));
    }
    if status.len() > bytes_max {
        return Err(too_long(bytes_max));
    }
    Ok(())
}

fn too_long(bytes_max: u64) -> io::Error {
    invalid(format!("longer than {bytes_max} bytes"))
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("backstop-input-{}-{name}", std::process::id()));
        let _ignored = fs::remove_file(&path);
        path
    }

    fn refusal(path: &Path) -> String {
        read_file(path, 8).unwrap_err().to_string()
    }

    #[test]
    fn a_small_regular_file_is_read() {
        let path = scratch("small");
        fs::write(&path, "12345678").unwrap();
        assert_eq!(read_text_file(&path, 8).unwrap(), "12345678");
        fs::write(&path, b"\xff").unwrap();
        let error = read_text_file(&path, 8).unwrap_err().to_string();
        assert!(error.starts_with("not UTF-8"), "{error}");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        assert_eq!(refusal(Path::new("/dev/zero")), "not a regular file");
        assert_eq!(refusal(&std::env::temp_dir()), "not a regular file");
        let pipe = scratch("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(refusal(&pipe), "not a regular file");
        let link = scratch("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        assert_eq!(refusal(&link), "not a regular file");
        fs::remove_file(pipe).unwrap();
        fs::remove_file(link).unwrap();
    }

    #[test]
    fn a_long_file_is_refused_whatever_length_it_claims() {
        let path = scratch("long");
        fs::write(&path, "123456789").unwrap();
        assert_eq!(refusal(&path), "longer than 8 bytes");
        // Sparse: a terabyte that takes no room.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(refusal(&path), "longer than 8 bytes");
        fs::remove_file(path).unwrap();
        // Claims to be empty.
        assert_eq!(
            refusal(Path::new("/proc/self/status")),
            "longer than 8 bytes"
        );
    }
}
