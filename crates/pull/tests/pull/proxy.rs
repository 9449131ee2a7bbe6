//! A proxy of the environment, as the binary finds it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};

use crate::*;

/// A proxy that connects, and says to whom.
fn proxy() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, connected) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let target = target(&stream);
            sender.send(target.clone()).unwrap();
            connect(stream, TcpStream::connect(target).unwrap());
        }
    });
    (url, connected)
}

/// Reads `CONNECT HOST:PORT` and the headers behind it.
fn target(stream: &TcpStream) -> String {
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    head[0].split(' ').nth(1).unwrap().to_owned()
}

fn connect(mut client: TcpStream, server: TcpStream) {
    client.write_all(b"HTTP/1.1 200 X\r\n\r\n").unwrap();
    let copies = [
        (client.try_clone().unwrap(), server.try_clone().unwrap()),
        (server, client),
    ];
    for (mut from, mut to) in copies {
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
}

fn pull_by(store: &Path, hub: &StandIn, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop-pull"));
    command
        .env_clear()
        .env("HOME", store)
        .envs(variables.iter().copied());
    command
        .args([REPOSITORY, "--endpoint", &hub.url, "--to"])
        .arg(store);
    command.output().unwrap()
}

#[test]
fn the_proxy_of_the_environment_is_used_unless_the_host_is_excepted() {
    for variable in ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"] {
        let (hub, store, (url, connected)) = (tiny(), Scratch::new(), proxy());
        let output = pull_by(&store, &hub, &[(variable, &url)]);
        assert!(output.status.success(), "{output:?}");
        assert_is_tiny(&store);
        let targets: Vec<String> = connected.try_iter().collect();
        assert!(
            targets.iter().any(|target| hub.url.ends_with(target)),
            "{targets:?}"
        );

        let store = Scratch::new();
        let output = pull_by(&store, &hub, &[(variable, &url), ("NO_PROXY", "127.0.0.1")]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(connected.try_iter().count(), 0);
    }
}

#[test]
fn a_proxy_that_cannot_be_understood_is_not_passed_by_and_its_password_is_not_shown() {
    let (hub, store) = (tiny(), Scratch::new());
    let output = pull_by(&store, &hub, &[("HTTPS_PROXY", "ftp://me:secret@proxy")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert_mentions(&text, &["HTTPS_PROXY is not an address of a proxy"]);
    assert!(!text.contains("secret"), "{text}");
    assert!(hub.requests().is_empty());
}
