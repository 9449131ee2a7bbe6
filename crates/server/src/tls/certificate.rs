//! What a certificate says of itself.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Characters of a name that are told.
const NAME_CHARS_MAX: usize = 256;

/// When it ends to be valid, from 1970 on.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Result<Duration, der::Error> {
    let certificate = Certificate::from_der(certificate)?;
    let validity = certificate.tbs_certificate().validity();
    Ok(validity.not_after.to_unix_duration())
}

/// Whose it is, for logs: the first alternative name that is a URI, a host or an address of mail, or else the common
/// name of the subject. Characters that are no good in logs become `?`.
pub(crate) fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let certificate = certificate.tbs_certificate();
    let names = certificate.get_extension::<SubjectAltName>().ok().flatten();
    let alternative = names.and_then(|(_, names)| names.0.iter().find_map(readable));
    let name = alternative.or_else(|| {
        let name = certificate.subject().common_name().ok().flatten()?;
        Some(String::from(name))
    })?;
    let harmless = |c: char| match c.is_control() || c.is_whitespace() {
        true => '?',
        false => c,
    };
    Some(name.chars().map(harmless).take(NAME_CHARS_MAX).collect())
}

fn readable(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::UniformResourceIdentifier(text)
        | GeneralName::DnsName(text)
        | GeneralName::Rfc822Name(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_name: &str, names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn clients_are_named_by_what_their_certificates_say() {
        let uri = SanType::URI("spiffe://example/gateway".try_into().unwrap());
        let host = SanType::DnsName("gateway.example".try_into().unwrap());
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let name = |common, names| name_of(&certificate(common, names)).unwrap();
        assert_eq!(name("a", vec![uri]), "spiffe://example/gateway");
        assert_eq!(name("a", vec![address.clone(), host]), "gateway.example");
        assert_eq!(name("the gateway\n", vec![address]), "the?gateway?");
        assert_eq!(name(&"x".repeat(500), vec![]).len(), NAME_CHARS_MAX);
        assert_eq!(name_of(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn the_end_of_validity_is_read() {
        let end = not_after(&certificate("a", vec![])).unwrap();
        assert_eq!(end.as_secs(), 1_927_843_200);
    }
}
