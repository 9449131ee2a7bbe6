use super::*;

fn keys(text: &str) -> Result<Vec<(KeyDigest, KeySettings)>, KeyFileError> {
    parse(text, Path::new("keys"))
}

fn reason(text: &str) -> String {
    keys(text).unwrap_err().to_string()
}

#[test]
fn a_line_says_what_a_key_may_do() {
    let settings = KeySettings {
        name: Some("gateway.eu-1".into()),
        requests_per_minute: Some(600),
        tokens_per_minute: Some(200_000),
        max_concurrent_requests: Some(32),
        lane: Lane::Interactive,
        may_choose_priority: true,
        may_see_all_keys: true,
    };
    let line = key_line("a-good-key", &settings);
    assert!(!line.contains("a-good-key"));
    assert_eq!(keys(&line).unwrap(), [(digest("a-good-key"), settings)]);
    let plain = key_line("a-good-key", &KeySettings::default());
    assert_eq!(keys(&plain).unwrap(), keys("a-good-key").unwrap());
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_is_complained_of() {
    use std::os::unix::fs::PermissionsExt;
    let name = format!("backstop-open-keys-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, "a-good-key\n").unwrap();
    let complaint = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, permissions).unwrap();
        key_file_complaint(&path)
    };
    assert_eq!(complaint(0o600), None);
    assert!(complaint(0o640).unwrap().contains("0640"));
    assert!(complaint(0o604).is_some());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(key_file_complaint(&path), None);
}

#[test]
fn keys_of_one_name_share_their_settings() {
    let rotated = "first-key-1 name=a lane=batch\n# soon\nother-key-2 name=a lane=batch\n";
    assert_eq!(keys(rotated).unwrap().len(), 2);
    let differing = "first-key-1 name=a lane=batch\nother-key-2 name=a\n";
    assert!(reason(differing).starts_with("line 2 "));
}

#[test]
fn bad_lines_are_named_without_showing_them() {
    for line in [
        "short",
        "good-key-1 with spaces",
        "good-key-1 lane=fast",
        "good-key-1 requests-per-minute=0",
        "good-key-1 requests-per-minute=-1",
        "good-key-1 tokens-per-minute=",
        "good-key-1 name=a/b",
        "good-key-1 name=",
        "good-key-1 may-choose-priority=no",
        "good-key-1 requests_per_minute=5",
        "sha256:abcd",
        &format!("sha256:{}", "é".repeat(32)),
        "kéy-with-accent",
        &"k".repeat(1025),
    ] {
        let message = reason(&format!("fine-key-1\n{line}\n"));
        assert!(message.starts_with("line 2 "), "{message}");
        assert!(
            !message.contains(line) && !message.contains("good-key"),
            "{message}"
        );
    }
    assert!(matches!(keys("# nothing\n"), Err(KeyFileError::Empty(_))));
    assert!(matches!(
        keys(&"some-key-1\n".repeat(KEYS_MAX + 1)),
        Err(KeyFileError::TooMany(_))
    ));
}
