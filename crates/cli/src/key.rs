//! `backstop key`: makes an API key.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use backstop_server::{KeySettings, key_line};

use crate::args::KeyArgs;

/// As much of a key file as a server reads.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Random bytes of a key.
const KEY_BYTES: usize = 32;

#[expect(clippy::print_stdout, reason = "the key is what the command is for")]
pub(crate) fn run(args: &KeyArgs) -> Result<ExitCode, String> {
    let settings = KeySettings {
        name: args.name.clone(),
        requests_per_minute: args.requests_per_minute,
        tokens_per_minute: args.tokens_per_minute,
        max_concurrent_requests: args.max_concurrent_requests,
        lane: args.lane,
        may_choose_priority: args.may_choose_priority,
        may_see_all_keys: args.may_see_all_keys,
    };
    settings.check()?;
    let key = new_key()?;
    let line = key_line(&key, &settings);
    match &args.append {
        Some(path) => {
            append(path, &line).map_err(|error| format!("{}: {error}", path.display()))?;
            println!("{key}");
        }
        None => println!("key, shown only now:\n  {key}\nline for the key file:\n  {line}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn new_key() -> Result<String, String> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sk-backstop-{digits}"))
}

/// Adds a line to a file, which only its owner can read if it is new.
fn append(path: &Path, line: &str) -> io::Result<()> {
    // A key that goes into a pipe or a device is lost.
    let existing = std::fs::metadata(path).map(|status| status.is_file());
    if existing.is_ok_and(|is_file| !is_file) {
        return Err(io::Error::other("not a regular file"));
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(&mut file, FILE_BYTES_MAX), &mut text)?;
    let separator = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    // In one piece, for a server may read the file at any moment.
    file.write_all(format!("{separator}{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use backstop_server::KeySet;

    use super::*;

    #[test]
    fn new_keys_differ_and_their_lines_are_accepted() {
        let path = std::env::temp_dir().join(format!("backstop-new-keys-{}", std::process::id()));
        std::fs::write(&path, "an-old-key-without-a-line-end").unwrap();
        for name in ["a", "b"] {
            let settings = KeySettings {
                name: Some(name.to_owned()),
                ..KeySettings::default()
            };
            append(&path, &key_line(&new_key().unwrap(), &settings)).unwrap();
        }
        let keys = KeySet::from_file(&path).unwrap();
        assert_eq!(keys.count(), 3);
        assert_eq!(keys.names().collect::<Vec<_>>(), ["a", "b"]);
        std::fs::remove_file(path).unwrap();
        assert_ne!(new_key().unwrap(), new_key().unwrap());
    }
}
