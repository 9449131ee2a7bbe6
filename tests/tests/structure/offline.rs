//! The server has nothing to go online with: no library that opens connections to others is in its tree.

use std::collections::BTreeSet;
use std::process::Command;

use super::root;

/// Packages that make requests or TLS connections, or know public authorities, which only clients need. Features of
/// packages that can do so are `PACKAGE feature "FEATURE"`. rustls by itself is none: the server ends TLS.
const CLIENTS: [&str; 20] = [
    "attohttpc",
    "awc",
    "curl",
    "hf-hub",
    "hyper feature \"client\"",
    "hyper-rustls",
    "hyper-tls",
    "hyper-util feature \"client\"",
    "hyper-util feature \"client-legacy\"",
    "isahc",
    "minreq",
    "native-tls",
    "openssl",
    "quinn",
    "reqwest",
    "rustls-native-certs",
    "rustls-platform-verifier",
    "surf",
    "ureq",
    "webpki-roots",
];

#[test]
fn the_server_has_no_client_in_its_tree_and_its_companions_have() {
    let server = tree("backstop");
    assert!(server.contains("axum") && server.contains("hyper feature \"server\""));
    let found: Vec<&str> = CLIENTS
        .into_iter()
        .filter(|client| server.contains(*client))
        .collect();
    assert!(found.is_empty(), "{found:?} are in the server's tree");
    // So that the test would find them.
    let pull = tree("backstop-pull");
    for client in ["hf-hub", "ureq", "webpki-roots"] {
        assert!(pull.contains(client), "{client}");
    }
    let drill = tree("backstop-drill");
    for client in ["hyper feature \"client\"", "rustls-native-certs"] {
        assert!(drill.contains(client), "{client}");
    }
}

/// Packages and their features that are linked into a package, with all of its own features.
fn tree(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", package, "--all-features"])
        .args(["--edges", "normal,build,features", "--prefix", "none"])
        .args(["--target", "all", "--offline", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(without_version).collect()
}

/// `NAME`, or `NAME feature "FEATURE"`.
fn without_version(line: &str) -> String {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    match (words.next(), words.next()) {
        (Some("feature"), Some(feature)) => format!("{name} feature {feature}"),
        _ => name.to_owned(),
    }
}
