use super::*;
use crate::keys::LIMIT_HEADER_NAMES;

fn settings(origins: &[&str], credentials: bool) -> CorsSettings {
    CorsSettings {
        allowed_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
        allowed_methods: vec!["*".into()],
        allowed_headers: vec!["*".into()],
        allow_credentials: credentials,
    }
}

#[test]
fn origins_are_written_as_browsers_send_them() {
    for good in [
        "*",
        "null",
        "https://chat.example",
        "http://localhost:3000",
        "http://[::1]:3000",
        "chrome-extension://abcdef",
        "tauri://localhost",
    ] {
        assert!(Cors::new(settings(&[good], false)).is_ok(), "{good}");
    }
    for bad in [
        "",
        "chat.example",
        "https://",
        "https://chat.example/",
        "https://chat.example/page",
        "https://Chat.example",
        "https://chat.example:443",
        "http://chat.example:80",
        "https://me@chat.example",
        "https://*.example ",
        "https://chat.example?x",
        "https://chat.example\n",
    ] {
        let refused = Cors::new(settings(&[bad], false));
        assert_eq!(refused, Err(CorsError::Origin(bad.to_owned())), "{bad}");
    }
}

#[test]
fn credentials_are_not_for_everybody() {
    let refused = Cors::new(settings(&["https://a.example", "*"], true));
    assert_eq!(refused, Err(CorsError::CredentialsForAll));
    assert!(Cors::new(settings(&["https://a.example"], true)).is_ok());
}

#[test]
fn names_must_be_names() {
    for bad in ["", "a b", "x\r\ny", "ä"] {
        let mut settings = settings(&["*"], false);
        settings.allowed_headers = vec![bad.to_owned()];
        assert_eq!(Cors::new(settings), Err(CorsError::Name(bad.to_owned())));
    }
}

#[test]
fn a_page_may_read_what_answers_say_of_limits() {
    let exposed: Vec<&str> = EXPOSED.split(", ").collect();
    assert!(exposed.is_sorted());
    for name in LIMIT_HEADER_NAMES.iter().flatten() {
        assert!(exposed.contains(&name.as_str()), "{name}");
    }
}
