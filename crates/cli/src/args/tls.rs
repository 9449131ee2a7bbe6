//! Settings of TLS, named as vLLM's.

use std::path::PathBuf;

use backstop_server::{ClientAuthorities, TlsFiles};
use clap::{Args, ValueEnum};

/// With what connections are encrypted, and which clients must show a certificate.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// File with the server's certificate in PEM, followed by those between it and its authority. With it all addresses
    /// but --probe-address and --uds speak HTTPS. Read again when it changes and on SIGHUP, like the following.
    #[arg(long, env = "BACKSTOP_SSL_CERTFILE", value_name = "FILE")]
    pub(crate) ssl_certfile: Option<PathBuf>,

    /// File with the certificate's key in PEM. [default: it is in the same file]
    #[arg(long, env = "BACKSTOP_SSL_KEYFILE", value_name = "FILE")]
    pub(crate) ssl_keyfile: Option<PathBuf>,

    /// File with the certificates of authorities in PEM. Clients must show a certificate that leads to one of them.
    #[arg(long, env = "BACKSTOP_SSL_CA_CERTS", value_name = "FILE")]
    pub(crate) ssl_ca_certs: Option<PathBuf>,

    /// Whether clients must show a certificate: 0 or none, 1 or optional, 2 or required. [default: required with
    /// --ssl-ca-certs, otherwise none]
    #[arg(long, env = "BACKSTOP_SSL_CERT_REQS", value_name = "DEMAND")]
    pub(crate) ssl_cert_reqs: Option<CertificateDemand>,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CertificateDemand {
    /// None is asked for.
    #[value(alias = "0")]
    None,
    /// One that is shown must be valid.
    #[value(alias = "1")]
    Optional,
    /// Nobody is let in without.
    #[value(alias = "2")]
    Required,
}

impl TlsArgs {
    /// The files that these settings name; `None` if nothing is to be encrypted.
    pub(crate) fn files(&self) -> Result<Option<TlsFiles>, String> {
        let Some(certificate) = &self.ssl_certfile else {
            let others = [
                ("--ssl-keyfile", self.ssl_keyfile.is_some()),
                ("--ssl-ca-certs", self.ssl_ca_certs.is_some()),
                ("--ssl-cert-reqs", self.ssl_cert_reqs.is_some()),
            ];
            let given = others.into_iter().find(|(_, is_given)| *is_given);
            return match given {
                Some((flag, _)) => Err(format!("{flag} needs --ssl-certfile")),
                None => Ok(None),
            };
        };
        Ok(Some(TlsFiles {
            certificate: certificate.clone(),
            key: self.ssl_keyfile.clone(),
            clients: self.clients()?,
        }))
    }

    fn clients(&self) -> Result<Option<ClientAuthorities>, String> {
        use CertificateDemand::{None as NoDemand, Optional, Required};
        match (&self.ssl_ca_certs, self.ssl_cert_reqs) {
            (None, None | Some(NoDemand)) => Ok(None),
            (None, Some(Optional | Required)) => {
                Err("--ssl-cert-reqs needs --ssl-ca-certs, by which certificates are judged".into())
            }
            (Some(_), Some(NoDemand)) => Err(
                "--ssl-ca-certs is of no use with --ssl-cert-reqs none: leave one of them out"
                    .into(),
            ),
            (Some(file), demand) => Ok(Some(ClientAuthorities {
                file: file.clone(),
                optional: demand == Some(Optional),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::serve_args;

    fn files(line: &[&str]) -> Result<Option<TlsFiles>, String> {
        serve_args(line).tls.files()
    }

    #[test]
    fn authorities_alone_ask_every_client() {
        let optional = |line: &[&str]| {
            let line = [&["--ssl-certfile=c", "--ssl-ca-certs=a"], line].concat();
            let clients = files(&line).unwrap().unwrap().clients.unwrap();
            clients.optional
        };
        assert!(!optional(&[]));
        assert!(!optional(&["--ssl-cert-reqs=2"]));
        assert!(!optional(&["--ssl-cert-reqs=required"]));
        assert!(optional(&["--ssl-cert-reqs=1"]));
        assert!(optional(&["--ssl-cert-reqs=optional"]));
        let plain = files(&["--ssl-certfile=c", "--ssl-cert-reqs=0"]);
        assert_eq!(plain.unwrap().unwrap().clients, None);
        assert_eq!(files(&[]), Ok(None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            &["--ssl-keyfile=k"] as &[&str],
            &["--ssl-ca-certs=a"],
            &["--ssl-cert-reqs=2"],
            &["--ssl-certfile=c", "--ssl-cert-reqs=2"],
            &[
                "--ssl-certfile=c",
                "--ssl-ca-certs=a",
                "--ssl-cert-reqs=none",
            ],
        ] {
            let error = files(line).unwrap_err();
            assert!(error.contains("--ssl-"), "{error}");
        }
    }
}
