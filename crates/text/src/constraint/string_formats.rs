//! JSON Schema's formats of strings as regular expressions, each of which matches nothing but
//! strings of its format.

use super::language::Language;

const DATE: &str = "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])\
    |(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))";
/// Without leap seconds, which are there at midnight in Greenwich alone.
const TIME: &str = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?\
    (Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
const LABEL: &str = "[a-zA-Z0-9]([a-zA-Z0-9]{0,30}(-[a-zA-Z0-9]{1,30})?)";
const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const IPV6_GROUP: &str = "[0-9a-fA-F]{1,4}";
const URI_CHARACTER: &str = "([a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})";

/// The strings of a format (RFC 3339, 1123, 2673, 4291, 4122, 3986 and, of RFC 5321, the usual
/// addresses); `None` if it is not enforced.
pub(super) fn language(format: &str) -> Option<Language> {
    let pattern = match format {
        "date" => DATE.to_owned(),
        "time" => TIME.to_owned(),
        "date-time" => format!("({DATE})T{TIME}"),
        "duration" => "P([0-9]{1,4}W|[0-9]{1,4}Y|[0-9]{1,4}D|[0-9]{1,4}M([0-9]{1,4}D)?\
             |T([0-9]{1,4}H|[0-9]{1,4}S|[0-9]{1,4}M([0-9]{1,4}S)?))"
            .to_owned(),
        "email" => format!("[a-zA-Z0-9]([._+-]?[a-zA-Z0-9]){{0,30}}@{LABEL}(\\.{LABEL}){{1,2}}"),
        "hostname" => format!("{LABEL}(\\.{LABEL}){{0,3}}"),
        "ipv4" => format!("{BYTE}(\\.{BYTE}){{3}}"),
        "ipv6" => ipv6(),
        "uuid" => "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}".to_owned(),
        "uri" => format!(
            "[a-zA-Z][a-zA-Z0-9+.-]*:(\\/\\/{LABEL}(\\.{LABEL})*(:[0-9]{{1,4}})?(\\/{URI_CHARACTER}*)*\
             |{URI_CHARACTER}+)(\\?({URI_CHARACTER}|[\\/?])*)?(#({URI_CHARACTER}|[\\/?])*)?"
        ),
        _ => return None,
    };
    Some(Language::Regex(pattern))
}

/// Eight groups, or fewer around two colons.
fn ipv6() -> String {
    let shortened = (0..=5).map(|before| {
        let after = 5 - before;
        let before = match before {
            0 => String::new(),
            _ => format!("{IPV6_GROUP}(:{IPV6_GROUP}){{{}}}", before - 1),
        };
        format!("{before}::({IPV6_GROUP}(:{IPV6_GROUP}){{0,{after}}})?")
    });
    let shortened: Vec<String> = shortened.collect();
    format!("({IPV6_GROUP}(:{IPV6_GROUP}){{7}}|{})", shortened.join("|"))
}
