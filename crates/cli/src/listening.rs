//! The sockets that `serve` listens at.

use std::net::SocketAddr;
use std::sync::Arc;

use backstop_server::{Listener, SocketFile, Tls, listen};

use crate::args::ServeArgs;

/// The addresses and ports that are listened on.
pub(crate) fn addresses(args: &ServeArgs) -> Vec<SocketAddr> {
    let listening = &args.listening;
    match listening.listen.is_empty() && listening.uds.is_none() {
        true => vec![SocketAddr::new(args.server.host, args.server.port)],
        false => listening.listen.clone(),
    }
}

/// What connections at these addresses are encrypted with.
pub(crate) fn tls(args: &ServeArgs) -> Result<Option<Arc<Tls>>, String> {
    let Some(files) = args.tls.files()? else {
        return Ok(None);
    };
    if addresses(args).is_empty() {
        return Err("--ssl-certfile encrypts TCP connections, and --uds alone has none".to_owned());
    }
    let tls = Tls::open(files).map_err(|error| format!("TLS: {error}"))?;
    Ok(Some(Arc::new(tls)))
}

/// The Unix socket of these settings. It is made before the process gives up making files and has other threads.
pub(crate) fn socket_file(args: &ServeArgs) -> Result<Option<SocketFile>, String> {
    let Some(path) = &args.listening.uds else {
        return Ok(None);
    };
    let socket = SocketFile::listen(path, args.listening.uds_mode);
    socket
        .map(Some)
        .map_err(|error| format!("cannot listen on --uds {}: {error}", path.display()))
}

/// All sockets that are listened at, and what they are called.
pub(crate) struct Listening {
    listeners: Vec<Listener>,
    names: Vec<String>,
    curl: String,
}

impl Listening {
    /// Listens at all of them. Must be called within a runtime.
    pub(crate) fn start(
        args: &ServeArgs,
        socket_file: Option<SocketFile>,
        tls: Option<&Tls>,
    ) -> Result<Self, String> {
        let knows_clients = tls.is_some_and(Tls::asks_every_client);
        if !knows_clients && args.callers.api_key_file.is_none() {
            warn_if_open(args);
        }
        let scheme = tls.map_or("http", |_| "https");
        let mut this = Self {
            listeners: Vec::new(),
            names: Vec::new(),
            curl: String::new(),
        };
        for address in addresses(args) {
            this.add_address(address, scheme)?;
        }
        if let (Some(file), Some(path)) = (socket_file, &args.listening.uds) {
            let socket = file.register().map_err(|error| error.to_string())?;
            let path = path.display();
            this.add(
                socket.into(),
                format!("unix:{path}"),
                format!("--unix-socket {path} http://localhost"),
            );
        }
        Ok(this)
    }

    fn add_address(&mut self, address: SocketAddr, scheme: &str) -> Result<(), String> {
        let listener = listen(address).map_err(|error| {
            format!(
                "cannot listen on {address}: {error}; choose another with --host, --port or --listen"
            )
        })?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let url = format!("{scheme}://{address}");
        self.add(listener.into(), url.clone(), url);
        Ok(())
    }

    fn add(&mut self, listener: Listener, name: String, curl: String) {
        if self.listeners.is_empty() {
            self.curl = curl;
        }
        self.listeners.push(listener);
        self.names.push(name);
    }

    /// Where clients come in, for the log.
    pub(crate) fn names(&self) -> String {
        self.names.join(", ")
    }

    /// What is to be served, and what curl is told to reach the first of them, which a path follows.
    pub(crate) fn parts(self) -> (Vec<Listener>, String) {
        (self.listeners, self.curl)
    }
}

fn warn_if_open(args: &ServeArgs) {
    for address in addresses(args) {
        let ip = address.ip();
        if !ip.is_loopback() {
            tracing::warn!(
                "listening on {ip} without --api-key-file: anybody who reaches it is served"
            );
        }
    }
}
