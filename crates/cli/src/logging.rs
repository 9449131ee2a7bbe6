//! The log: on standard error, so that standard output holds answers alone.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use backstop_executor::panic_message;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};

use crate::args::{LogArgs, LogFormat};

/// What is logged if nobody says otherwise.
const USUAL_LEVEL: &str = "info";
/// Leaves out the lines about requests, but for errors.
const WITHOUT_ACCESS: &str = "backstop_server::access_log=error";

/// Starts the log, unless it has been started.
pub(crate) fn start(args: &LogArgs) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(args))
        .with_writer(std::io::stderr);
    // Only the first has an effect.
    let _ignored = match args.log_format {
        LogFormat::Text => log
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => {
            std::panic::set_hook(Box::new(log_panic));
            log.json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .try_init()
        }
    };
}

/// A panic as one more line of the log, whose other lines are JSON.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        location,
        thread = thread.name(),
        "panicked: {}",
        panic_message(panic.payload())
    );
}

fn filter(args: &LogArgs) -> EnvFilter {
    let filter = match &args.log_level {
        Some(levels) => EnvFilter::new(levels),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(USUAL_LEVEL)),
    };
    match WITHOUT_ACCESS.parse::<Directive>() {
        Ok(without) if args.disable_access_log => filter.add_directive(without),
        _ => filter,
    }
}

/// Levels as `--log-level` has them. A single word is a level and not, as in `RUST_LOG`, perhaps a part of the program:
/// of which nothing would be logged if it were misspelt.
pub(crate) fn parse_levels(text: &str) -> Result<String, String> {
    for part in text.split(',') {
        let known = match part.contains('=') {
            true => part.parse::<Directive>().is_ok(),
            // Nothing would be read as the level of errors.
            false => !part.is_empty() && part.parse::<LevelFilter>().is_ok(),
        };
        if !known {
            return Err(format!(
                "{part:?} is neither error, warn, info, debug nor trace, nor TARGET=LEVEL"
            ));
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words_or_belong_to_parts_of_the_program() {
        for text in [
            "info",
            "DEBUG",
            "off",
            "warn,backstop_server=debug",
            "backstop_server::access_log=off",
        ] {
            assert_eq!(parse_levels(text).as_deref(), Ok(text));
        }
        for text in ["verbose", "", "info,", "backstop_server", "a=loud"] {
            assert!(parse_levels(text).is_err(), "{text:?}");
        }
    }
}
