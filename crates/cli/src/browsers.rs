//! The settings of which pages in browsers may call.

use backstop_server::{Cors, CorsError, CorsSettings};

use crate::args::CallerArgs;
use crate::quantities::JsonList;

/// What browsers are told; `None` without `--allowed-origins`.
pub(crate) fn cors(args: &CallerArgs) -> Result<Option<Cors>, String> {
    let Some(JsonList(allowed_origins)) = args.allowed_origins.clone() else {
        let without_meaning = [
            ("--allowed-methods", args.allowed_methods.is_some()),
            ("--allowed-headers", args.allowed_headers.is_some()),
            ("--allow-credentials", args.allow_credentials),
        ];
        return match without_meaning.iter().find(|(_, is_set)| *is_set) {
            Some((flag, _)) => Err(format!("{flag} means nothing without --allowed-origins")),
            None => Ok(None),
        };
    };
    let or_all = |names: &Option<JsonList>| match names {
        Some(JsonList(names)) => names.clone(),
        None => vec!["*".to_owned()],
    };
    let settings = CorsSettings {
        allowed_origins,
        allowed_methods: or_all(&args.allowed_methods),
        allowed_headers: or_all(&args.allowed_headers),
        allow_credentials: args.allow_credentials,
    };
    let cors = Cors::new(settings);
    let flag = |error: &CorsError| match error {
        CorsError::Origin(_) => "--allowed-origins",
        CorsError::CredentialsForAll => "--allowed-origins with --allow-credentials",
        CorsError::Name(_) => "--allowed-methods or --allowed-headers",
    };
    let cors = cors.map_err(|error| format!("{}: {error}", flag(&error)))?;
    Ok(Some(cors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::serve_args;

    fn told(line: &[&str]) -> Result<Option<Cors>, String> {
        cors(&serve_args(line).callers)
    }

    #[test]
    fn without_origins_there_is_nothing_and_nothing_else_may_be_set() {
        assert_eq!(told(&[]), Ok(None));
        let methods = told(&["--allowed-methods", r#"["GET"]"#]);
        assert!(methods.unwrap_err().starts_with("--allowed-methods"));
    }

    #[test]
    fn credentials_for_all_pages_are_refused_with_the_reason() {
        let told = |origins| told(&["--allow-credentials", "--allowed-origins", origins]);
        assert!(told(r#"["*"]"#).unwrap_err().contains("name the origins"));
        assert!(told(r#"["https://a.example"]"#).unwrap().is_some());
    }
}
