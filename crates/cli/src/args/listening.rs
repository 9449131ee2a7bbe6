//! Settings of further addresses.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Permissions of a socket file.
const PERMISSIONS_MAX: u32 = 0o777;

/// Where else than at `--host` and `--port` it listens.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ListeningArgs {
    /// Address and port to listen on, such as 0.0.0.0:8000 or [::1]:8000; repeatable. It takes the place of --host and
    /// --port.
    #[arg(
        long,
        env = "BACKSTOP_LISTEN",
        value_name = "ADDRESS:PORT",
        value_delimiter = ','
    )]
    pub(crate) listen: Vec<SocketAddr>,

    /// Unix socket to listen on, made at this path and removed at the end. It takes the place of --host and --port;
    /// --listen goes beside it.
    #[arg(long, env = "BACKSTOP_UDS", value_name = "PATH")]
    pub(crate) uds: Option<PathBuf>,

    /// Who may open that socket, as permissions of a file: 0660 lets the file's group.
    #[arg(long, env = "BACKSTOP_UDS_MODE", value_name = "MODE", value_parser = parse_mode, default_value = "0600")]
    pub(crate) uds_mode: u32,
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok();
    let mode = mode.filter(|mode| *mode <= PERMISSIONS_MAX);
    mode.ok_or_else(|| "expected permissions in octal digits, such as 0660".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::serve_args;

    #[test]
    fn several_addresses_and_a_socket_go_together() {
        let line = [
            "--listen=127.0.0.1:1,[::1]:2",
            "--listen=127.0.0.1:3",
            "--uds=/run/b",
            "--uds-mode=660",
        ];
        let args = serve_args(&line).listening;
        let addresses: Vec<String> = args.listen.iter().map(SocketAddr::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:1", "[::1]:2", "127.0.0.1:3"]);
        assert_eq!((args.uds, args.uds_mode), (Some("/run/b".into()), 0o660));
        for mode in ["0888", "rw", "1777", ""] {
            assert!(parse_mode(mode).is_err(), "{mode}");
        }
    }
}
