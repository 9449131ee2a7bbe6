//! Lets a TOML file say what neither command line nor environment do.
//!
//! What the file says becomes the default of the flag of that name, and the command line is read once
//! more: so a setting is declared in one place, and a value means the same wherever it stands.

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, ArgAction, CommandFactory, FromArgMatches};

use crate::args::{Command, CommandLine, ServeArgs};

/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What names the file, and cannot stand in it.
const FILE_SETTING: &str = "config";

/// The settings of this process, with the file named by `--config` behind command line and environment.
pub(crate) fn with_file(args: ServeArgs) -> Result<ServeArgs, String> {
    match &args.config {
        None => Ok(args),
        Some(path) => {
            let fault = |reason: String| format!("--config {}: {reason}", path.display());
            let text = read(path).map_err(fault)?;
            with_text(&text, std::env::args_os()).map_err(fault)
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    backstop_input::read_text_file(path, FILE_BYTES_MAX).map_err(|error| error.to_string())
}

/// The settings of a command line, with a file's text behind it.
fn with_text(text: &str, line: impl IntoIterator<Item = OsString>) -> Result<ServeArgs, String> {
    let settings: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut program = CommandLine::command();
    let serve = program
        .find_subcommand_mut("serve")
        .ok_or("there is no command serve")?;
    for (name, value) in settings {
        let id = name.replace('-', "_");
        let known = serve
            .get_arguments()
            .find(|argument| argument.get_id() == &id);
        let known =
            known.filter(|argument| argument.get_id() != FILE_SETTING && !name.contains('_'));
        let known = known.ok_or_else(|| format!("there is no setting {name:?}"))?;
        let values = written(known, value).map_err(|reason| format!("{name}: {reason}"))?;
        *serve = std::mem::take(serve).mut_arg(id, |argument| argument.default_values(values));
    }
    let read = program.try_get_matches_from(line);
    let read = read.and_then(|matches| CommandLine::from_arg_matches(&matches));
    match read.map_err(|error| error.to_string())?.command {
        Command::Serve(args) => Ok(*args),
        _ => Err("it is for serve alone".to_owned()),
    }
}

/// A value as the command line has it: texts and numbers as they are, a list of several values one by
/// one, and everything else as JSON.
fn written(argument: &Arg, value: toml::Value) -> Result<Vec<String>, String> {
    let is_repeatable = matches!(argument.get_action(), ArgAction::Append);
    match value {
        toml::Value::Array(values) if is_repeatable => values.into_iter().map(word).collect(),
        value => Ok(vec![word(value)?]),
    }
}

fn word(value: toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text),
        value => serde_json::to_string(&value).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{DeviceChoice, KvCacheDtype, LoadFormat};

    fn settings(file: &str, line: &[&str]) -> Result<ServeArgs, String> {
        let line = ["backstop", "serve"].iter().chain(line);
        with_text(file, line.map(OsString::from))
    }

    fn from_command_line(arguments: &[&str]) -> ServeArgs {
        settings("", arguments).unwrap()
    }

    fn from_file(text: &str) -> ServeArgs {
        settings(text, &[]).unwrap()
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = "model = 'a'\nport = 1\nqueue-timeout = '5s'\nkv-cache-memory = '1GiB'\n\
             served-model-name = ['x', '*']\nkv-cache-dtype = 'fp8'\n\
             hf-overrides = { sliding_window = 8 }\n";
        let merged = settings(file, &["b", "--port", "2"]).unwrap();
        assert_eq!(merged.model.model.as_deref(), Some("b"));
        assert_eq!(merged.server.port, 2);
        assert_eq!(
            merged.queue.queue_timeout,
            std::time::Duration::from_secs(5)
        );
        assert_eq!(merged.model.kv_cache_memory, Some(1 << 30));
        assert_eq!(merged.server.served_model_name, ["x", "*"]);
        assert_eq!(merged.model.hf_overrides.unwrap()["sliding_window"], 8);
    }

    #[test]
    fn settings_of_the_gpu_are_written_as_on_the_command_line() {
        let text = "device = 'cuda:1'\ngpu-memory-utilization = 0.5\nload-format = 'dummy'\n\
                    kv-cache-dtype = 'bf16'\nenforce-eager = true\n";
        let model = from_file(text).model;
        assert_eq!(model.device, Some(DeviceChoice::Cuda(1)));
        assert_eq!(model.gpu_memory_utilization, Some(0.5));
        assert_eq!(model.load_format, Some(LoadFormat::Synthetic));
        assert_eq!(model.kv_cache_dtype, Some(KvCacheDtype::Bf16));
        assert!(model.enforce_eager);
        let model = from_command_line(&["--device", "cpu", "--kv-cache-dtype", "bfloat16"]).model;
        assert_eq!(model.device, Some(DeviceChoice::Cpu));
        assert_eq!(model.kv_cache_dtype, Some(KvCacheDtype::Bf16));
        assert!(settings("device = 'gpu'", &[]).is_err());
    }

    #[test]
    fn settings_of_the_queue_are_written_as_on_the_command_line() {
        let text = "admission-profile = 'outage'\noutage-queue-timeout = '200s'\n\
                    max-num-queued-tokens = 5\nallow-priority = true\n\
                    outage-max-num-queued-reqs = 7\noutage-default-max-tokens = 9\n";
        let file = from_file(text);
        let line = from_command_line(&[
            "--admission-profile=outage",
            "--outage-queue-timeout=200s",
            "--max-num-queued-tokens=5",
            "--allow-priority",
            "--outage-max-num-queued-reqs=7",
            "--outage-default-max-tokens=9",
        ]);
        assert_eq!(format!("{file:?}"), format!("{line:?}"));
    }

    #[test]
    fn settings_for_clients_are_written_as_on_the_command_line() {
        let text = "allowed-origins = ['https://a.example', 'null']\nallowed-methods = ['GET']\n\
                    allowed-headers = []\nallow-credentials = true\n\
                    response-keep-alive = '1500ms'\n";
        let file = from_file(text);
        let line = from_command_line(&[
            r#"--allowed-origins=["https://a.example", "null"]"#,
            r#"--allowed-methods=["GET"]"#,
            "--allowed-headers=[]",
            "--allow-credentials",
            "--response-keep-alive=1.5s",
        ]);
        assert_eq!(format!("{file:?}"), format!("{line:?}"));
    }

    #[test]
    fn the_probe_address_is_written_as_on_the_command_line() {
        let file = from_file("probe-address = '[::1]:8001'");
        let line = from_command_line(&["--probe-address", "[::1]:8001"]);
        assert!(line.server.probe_address.is_some());
        assert_eq!(file.server.probe_address, line.server.probe_address);
        assert!(settings("probe-address = '127.0.0.1'", &[]).is_err());
    }

    #[test]
    fn an_unknown_setting_in_the_file_is_an_error() {
        let error = settings("prot = 8000", &[]).unwrap_err();
        assert!(error.contains("\"prot\""), "{error}");
        assert!(settings("max_model_len = 1", &[]).is_err());
        assert!(settings("config = 'another.toml'", &[]).is_err());
    }

    #[test]
    fn switches_are_on_or_off() {
        assert!(from_file("allow-priority = true").callers.allow_priority);
        assert!(!from_file("allow-priority = false").callers.allow_priority);
        let line = settings("allow-priority = false", &["--allow-priority"]);
        assert!(line.unwrap().callers.allow_priority);
    }
}
