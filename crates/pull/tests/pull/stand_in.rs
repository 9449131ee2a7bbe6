//! A stand-in for a Hugging Face hub: the list of a repository's files, the files, large ones on a second server as the
//! real hub has them, and any fault that a test asks for.

mod answer;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use self::answer::{answer, send};
pub(crate) use self::answer::{git_digest, sha256};

pub(crate) const REPOSITORY: &str = "someone/tiny";
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// Whether the second server was asked, where large files are.
    pub(crate) is_elsewhere: bool,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// How often the same was asked for before, in the same range.
    pub(crate) before: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn is_listing(&self) -> bool {
        self.path.starts_with("/api/")
    }
}

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    None,
    /// Another answer altogether.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// Nothing more comes after so many bytes of the body.
    StallAfter(usize),
    /// The range is ignored.
    Whole,
    /// The range begins a byte too late, and says so.
    WrongRange,
    /// One byte is another.
    WrongByte,
    /// One byte too few, and a length that says so.
    Short,
}

pub(crate) fn status(status: u16) -> Fault {
    Fault::Answer(status, Vec::new(), b"no".to_vec())
}

pub(crate) fn status_with(status: u16, name: &'static str, value: impl ToString) -> Fault {
    Fault::Answer(status, vec![(name, value.to_string())], b"no".to_vec())
}

type Chooser = Box<dyn Fn(&Request) -> Fault + Send + Sync>;

struct State {
    commit: String,
    files: BTreeMap<String, File>,
    elsewhere: String,
    choose: Mutex<Chooser>,
    requests: Mutex<Vec<Request>>,
    bytes_sent: Mutex<u64>,
}

struct File {
    bytes: Vec<u8>,
    is_large: bool,
}

/// A hub with one repository, on two ports.
pub(crate) struct StandIn {
    pub(crate) url: String,
    state: Arc<State>,
}

impl StandIn {
    /// Files whose names begin with a `*` are large.
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        Self::at_commit(COMMIT, files)
    }

    pub(crate) fn at_commit(commit: &str, files: &[(&str, &[u8])]) -> Self {
        Self::start(commit, files, None)
    }

    /// One that speaks TLS, and the certificate (PEM) of the authority that vouches for it.
    pub(crate) fn encrypted(files: &[(&str, &[u8])]) -> (Self, String) {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.into())
            .unwrap();
        let stand_in = Self::start(COMMIT, files, Some(Arc::new(config)));
        (stand_in, own.cert.pem())
    }

    fn start(commit: &str, files: &[(&str, &[u8])], tls: Option<Arc<ServerConfig>>) -> Self {
        let files = files.iter().map(|(name, bytes)| {
            let file = File {
                bytes: bytes.to_vec(),
                is_large: name.starts_with('*'),
            };
            (name.trim_start_matches('*').to_owned(), file)
        });
        let (hub, elsewhere) = (listener(), listener());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = |listener: &TcpListener| format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            commit: commit.to_owned(),
            files: files.collect(),
            elsewhere: url(&elsewhere),
            choose: Mutex::new(Box::new(|_| Fault::None)),
            requests: Mutex::default(),
            bytes_sent: Mutex::default(),
        });
        let url = url(&hub);
        for (listener, is_elsewhere) in [(hub, false), (elsewhere, true)] {
            let (state, tls) = (state.clone(), tls.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, tls) = (state.clone(), tls.clone());
                    std::thread::spawn(move || accept(&state, stream, tls, is_elsewhere));
                }
            });
        }
        Self { url, state }
    }

    /// From now on, this says what goes wrong.
    pub(crate) fn choose(&self, choose: impl Fn(&Request) -> Fault + Send + Sync + 'static) {
        *self.state.choose.lock().unwrap() = Box::new(choose);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Bytes of files that were sent.
    pub(crate) fn bytes_sent(&self) -> u64 {
        *self.state.bytes_sent.lock().unwrap()
    }

    pub(crate) fn is_large(&self, name: &str) -> bool {
        self.state.files[name].is_large
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn accept(state: &State, stream: TcpStream, tls: Option<Arc<ServerConfig>>, is_elsewhere: bool) {
    match tls {
        Some(config) => {
            let connection = ServerConnection::new(config).unwrap();
            serve(state, StreamOwned::new(connection, stream), is_elsewhere);
        }
        None => serve(state, stream, is_elsewhere),
    }
}

fn serve(state: &State, stream: impl Read + Write, is_elsewhere: bool) {
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut reader) {
        let stream = reader.get_mut();
        request.is_elsewhere = is_elsewhere;
        {
            let mut requests = state.requests.lock().unwrap();
            let is_same = |other: &&Request| {
                other.path == request.path && other.header("range") == request.header("range")
            };
            request.before = requests.iter().filter(is_same).count();
            requests.push(request.clone());
        }
        let fault = state.choose.lock().unwrap()(&request);
        let is_open = match &fault {
            Fault::Answer(status, headers, body) => send(stream, *status, headers, body),
            _ => answer(state, stream, &request, &fault),
        };
        if is_open.is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|count| *count > 0)?;
    let mut request = Request {
        path: line.split(' ').nth(1)?.to_owned(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            return Some(request);
        };
        request
            .headers
            .insert(name.to_lowercase(), value.to_owned());
    }
}
