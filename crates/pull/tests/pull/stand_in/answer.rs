//! What the stand-in answers, with the fault that it was told.

use std::io::{Read, Write};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::{Fault, File, REPOSITORY, Request, State};

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(crate) fn git_digest(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

type Sent = std::io::Result<()>;

pub(super) fn send(
    stream: &mut (impl Read + Write),
    status: u16,
    headers: &[(&str, String)],
    body: &[u8],
) -> Sent {
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

pub(super) fn answer(
    state: &State,
    stream: &mut (impl Read + Write),
    request: &Request,
    fault: &Fault,
) -> Sent {
    let path = request.path.split('?').next().unwrap();
    if request.is_elsewhere {
        let found = state
            .files
            .values()
            .find(|file| path == format!("/{}", sha256(&file.bytes)));
        return match found {
            Some(file) => content(state, stream, request, file, &[], fault),
            None => send(stream, 404, &[], b""),
        };
    }
    let listing = format!("/api/models/{REPOSITORY}/revision/");
    if let Some(revision) = path.strip_prefix(&listing) {
        return match revision == "main" || revision == state.commit {
            true => send_list(state, stream, fault),
            false => send(stream, 404, &code("RevisionNotFound"), b""),
        };
    }
    if path.starts_with("/api/") {
        return send(stream, 401, &code("RepoNotFound"), b"");
    }
    let files = format!("/{REPOSITORY}/resolve/{}/", state.commit);
    let name = path
        .strip_prefix(&files)
        .unwrap_or_default()
        .replace("%20", " ");
    match state.files.get(&name) {
        None => send(stream, 404, &code("EntryNotFound"), b""),
        Some(file) if file.is_large => {
            let digest = sha256(&file.bytes);
            let headers = [
                (
                    "location",
                    format!("{}/{digest}?signature=secret", state.elsewhere),
                ),
                ("x-repo-commit", state.commit.clone()),
                ("x-linked-etag", format!("\"{digest}\"")),
                ("x-linked-size", file.bytes.len().to_string()),
            ];
            send(stream, 302, &headers, b"Found. Redirecting")
        }
        Some(file) => {
            let etag = format!("\"{}\"", git_digest(&file.bytes));
            let headers = [("x-repo-commit", state.commit.clone()), ("etag", etag)];
            content(state, stream, request, file, &headers, fault)
        }
    }
}

fn code(code: &str) -> [(&'static str, String); 1] {
    [("x-error-code", code.to_owned())]
}

fn send_list(state: &State, stream: &mut (impl Read + Write), fault: &Fault) -> Sent {
    let text = list(state);
    let Fault::CutAfter(count) = fault else {
        return send(stream, 200, &[], text.as_bytes());
    };
    let head = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", text.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&text.as_bytes()[..*count])?;
    Err(std::io::ErrorKind::BrokenPipe.into())
}

fn list(state: &State) -> String {
    let siblings = state.files.iter().map(|(name, file)| {
        let (bytes, git) = (file.bytes.len(), git_digest(&file.bytes));
        let large = match file.is_large {
            true => format!(
                ",\"lfs\":{{\"sha256\":\"{}\",\"size\":{bytes},\"pointerSize\":130}}",
                sha256(&file.bytes)
            ),
            false => String::new(),
        };
        format!("{{\"rfilename\":\"{name}\",\"size\":{bytes},\"blobId\":\"{git}\"{large}}}")
    });
    let siblings: Vec<String> = siblings.collect();
    format!(
        "{{\"id\":\"{REPOSITORY}\",\"sha\":\"{}\",\"gated\":false,\"cardData\":{{\"license\":\"apache-2.0\"}},\"siblings\":[{}]}}",
        state.commit,
        siblings.join(",")
    )
}

fn content(
    state: &State,
    stream: &mut (impl Read + Write),
    request: &Request,
    file: &File,
    headers: &[(&str, String)],
    fault: &Fault,
) -> Sent {
    let total = file.bytes.len();
    let range = request
        .header("range")
        .filter(|_| !matches!(fault, Fault::Whole));
    let mut headers = headers.to_vec();
    let (mut status, mut start, mut end) = (200, 0, total);
    if let Some(range) = range {
        let (first, last) = range
            .strip_prefix("bytes=")
            .unwrap()
            .split_once('-')
            .unwrap();
        (status, start) = (206, first.parse().unwrap());
        if !last.is_empty() {
            end = total.min(last.parse::<usize>().unwrap() + 1);
        }
        match fault {
            Fault::WrongRange => start += 1,
            Fault::Short => end -= 1,
            _ => {}
        }
        headers.push((
            "content-range",
            format!("bytes {start}-{}/{total}", end - 1),
        ));
    } else if matches!(fault, Fault::Short) {
        end -= 1;
    }
    let mut body = file.bytes[start..end].to_vec();
    if let Fault::WrongByte = fault {
        body[0] ^= 1;
    }
    let now = match fault {
        Fault::CutAfter(count) | Fault::StallAfter(count) => *count.min(&body.len()),
        _ => body.len(),
    };
    *state.bytes_sent.lock().unwrap() += now as u64;
    if now == body.len() {
        return send(stream, status, &headers, &body);
    }
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in &headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&body[..now])?;
    stream.flush()?;
    if let Fault::StallAfter(_) = fault {
        // Until the other side has enough of it.
        let mut byte = [0];
        let _ended = stream.read(&mut byte);
    }
    Err(std::io::ErrorKind::BrokenPipe.into())
}
