//! Merges command line, environment and configuration file, and fills in the defaults.

use std::path::Path;

use clap::Args;

use crate::args::{ModelArgs, ServeArgs};

/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the file named by `--config`, if any, and lets everything already set win over it.
pub(crate) fn with_file(args: ServeArgs) -> Result<ServeArgs, String> {
    match &args.config {
        None => Ok(args),
        Some(path) => {
            let file = read(path)?;
            Ok(merge(args, file))
        }
    }
}

fn read(path: &Path) -> Result<ServeArgs, String> {
    let text = backstop_input::read_text_file(path, FILE_BYTES_MAX)
        .map_err(|error| format!("--config {}: {error}", path.display()))?;
    parse(&text).map_err(|error| format!("--config {}: {error}", path.display()))
}

/// Splits the settings between the two structures that refuse unknown ones.
fn parse(text: &str) -> Result<ServeArgs, toml::de::Error> {
    let model_command = ModelArgs::augment_args(clap::Command::new("model"));
    let is_model = |key: &str| {
        model_command
            .get_arguments()
            .any(|argument| argument.get_id() == &key.replace('-', "_"))
    };
    let (model, serve): (toml::Table, toml::Table) = toml::from_str::<toml::Table>(text)?
        .into_iter()
        .partition(|(key, _)| is_model(key));
    let model: ModelArgs = model.try_into()?;
    Ok(ServeArgs {
        model,
        ..serve.try_into()?
    })
}

fn merge(args: ServeArgs, file: ServeArgs) -> ServeArgs {
    ServeArgs {
        model: merge_model(args.model, file.model),
        host: args.host.or(file.host),
        port: args.port.or(file.port),
        probe_address: args.probe_address.or(file.probe_address),
        served_model_name: if args.served_model_name.is_empty() {
            file.served_model_name
        } else {
            args.served_model_name
        },
        api_key_file: args.api_key_file.or(file.api_key_file),
        allowed_origins: args.allowed_origins.or(file.allowed_origins),
        allowed_methods: args.allowed_methods.or(file.allowed_methods),
        allowed_headers: args.allowed_headers.or(file.allowed_headers),
        allow_credentials: args.allow_credentials || file.allow_credentials,
        allow_priority: args.allow_priority || file.allow_priority,
        allow_special_tokens_in_content: args.allow_special_tokens_in_content
            || file.allow_special_tokens_in_content,
        unsupported_content: args.unsupported_content.or(file.unsupported_content),
        share_prefix_cache: args.share_prefix_cache || file.share_prefix_cache,
        max_num_queued_reqs: args.max_num_queued_reqs.or(file.max_num_queued_reqs),
        max_num_queued_tokens: args.max_num_queued_tokens.or(file.max_num_queued_tokens),
        queue_timeout: args.queue_timeout.or(file.queue_timeout),
        admission_profile: args.admission_profile.or(file.admission_profile),
        outage_max_num_queued_reqs: args
            .outage_max_num_queued_reqs
            .or(file.outage_max_num_queued_reqs),
        outage_queue_timeout: args.outage_queue_timeout.or(file.outage_queue_timeout),
        outage_default_max_tokens: args
            .outage_default_max_tokens
            .or(file.outage_default_max_tokens),
        shutdown_timeout: args.shutdown_timeout.or(file.shutdown_timeout),
        response_keep_alive: args.response_keep_alive.or(file.response_keep_alive),
        config: args.config,
    }
}

fn merge_model(args: ModelArgs, file: ModelArgs) -> ModelArgs {
    ModelArgs {
        model: args.model.or(file.model),
        max_model_len: args.max_model_len.or(file.max_model_len),
        max_num_seqs: args.max_num_seqs.or(file.max_num_seqs),
        max_num_batched_tokens: args.max_num_batched_tokens.or(file.max_num_batched_tokens),
        block_size: args.block_size.or(file.block_size),
        kv_cache_memory: args.kv_cache_memory.or(file.kv_cache_memory),
        kv_cache_dtype: args.kv_cache_dtype.or(file.kv_cache_dtype),
        device: args.device.or(file.device),
        gpu_memory_utilization: args.gpu_memory_utilization.or(file.gpu_memory_utilization),
        enforce_eager: args.enforce_eager || file.enforce_eager,
        load_format: args.load_format.or(file.load_format),
        num_threads: args.num_threads.or(file.num_threads),
        chat_format: args.chat_format.or(file.chat_format),
        hf_overrides: args.hf_overrides.or(file.hf_overrides),
        no_enable_prefix_caching: args.no_enable_prefix_caching || file.no_enable_prefix_caching,
        speculative_config: args.speculative_config.or(file.speculative_config),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Command, CommandLine, DeviceChoice, KvCacheDtype, LoadFormat};

    fn from_command_line(arguments: &[&str]) -> ServeArgs {
        let arguments = ["backstop", "serve"].iter().chain(arguments);
        match CommandLine::parse_from(arguments).command {
            Command::Serve(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = parse(
            "model = 'a'\nport = 1\nqueue-timeout = '5s'\nkv-cache-memory = '1GiB'\n\
             served-model-name = ['x', '*']\nkv-cache-dtype = 'fp8'\n\
             hf-overrides = { sliding_window = 8 }\n",
        )
        .unwrap();
        let merged = merge(from_command_line(&["b", "--port", "2"]), file);
        assert_eq!(merged.model.model.as_deref(), Some("b"));
        assert_eq!(merged.port, Some(2));
        assert_eq!(
            merged.queue_timeout,
            Some(std::time::Duration::from_secs(5))
        );
        assert_eq!(merged.model.kv_cache_memory, Some(1 << 30));
        assert_eq!(merged.served_model_name, ["x", "*"]);
        assert_eq!(merged.model.hf_overrides.unwrap()["sliding_window"], 8);
    }

    #[test]
    fn settings_of_the_gpu_are_written_as_on_the_command_line() {
        let text = "device = 'cuda:1'\ngpu-memory-utilization = 0.5\nload-format = 'dummy'\n\
                    kv-cache-dtype = 'bf16'\nenforce-eager = true\n";
        let model = merge(from_command_line(&[]), parse(text).unwrap()).model;
        assert_eq!(model.device, Some(DeviceChoice::Cuda(1)));
        assert_eq!(model.gpu_memory_utilization, Some(0.5));
        assert_eq!(model.load_format, Some(LoadFormat::Synthetic));
        assert_eq!(model.kv_cache_dtype, Some(KvCacheDtype::Bf16));
        assert!(model.enforce_eager);
        let model = from_command_line(&["--device", "cpu", "--kv-cache-dtype", "bfloat16"]).model;
        assert_eq!(model.device, Some(DeviceChoice::Cpu));
        assert_eq!(model.kv_cache_dtype, Some(KvCacheDtype::Bf16));
        assert!(parse("device = 'gpu'").is_err());
    }

    #[test]
    fn settings_of_the_queue_are_written_as_on_the_command_line() {
        let text = "admission-profile = 'outage'\noutage-queue-timeout = '200s'\n\
                    max-num-queued-tokens = 5\nallow-priority = true\n\
                    outage-max-num-queued-reqs = 7\noutage-default-max-tokens = 9\n";
        let file = merge(from_command_line(&[]), parse(text).unwrap());
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
        let file = merge(from_command_line(&[]), parse(text).unwrap());
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
        let file = merge(
            from_command_line(&[]),
            parse("probe-address = '[::1]:8001'").unwrap(),
        );
        let line = from_command_line(&["--probe-address", "[::1]:8001"]);
        assert!(line.probe_address.is_some());
        assert_eq!(file.probe_address, line.probe_address);
        assert!(parse("probe-address = '127.0.0.1'").is_err());
    }

    #[test]
    fn an_unknown_setting_in_the_file_is_an_error() {
        assert!(parse("prot = 8000").is_err());
    }
}
