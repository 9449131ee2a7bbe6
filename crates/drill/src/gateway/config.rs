//! The operator's configuration, with the stand-in in the place of the providers that a blackout takes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::lists::Lists;
use super::settings::{FALLBACK_LISTS, Settings};
use super::substitution::{OVER_TLS, stand_in_for};
use crate::DrillError;

const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Settings that would send something elsewhere, or need what the drill does not have.
const LEFT_OUT: [(&str, &[&str]); 3] = [
    (
        "general_settings",
        &[
            "alerting",
            "alerting_threshold",
            "alert_types",
            "background_health_checks",
            "database_url",
            "store_model_in_db",
            "store_prompts_in_spend_logs",
        ],
    ),
    (
        "litellm_settings",
        &[
            "audit_log_callbacks",
            "cache",
            "cache_params",
            "callbacks",
            "failure_callback",
            "service_callback",
            "success_callback",
        ],
    ),
    (
        "router_settings",
        &["redis_host", "redis_password", "redis_port", "redis_url"],
    ),
];

/// A copy of a configuration, for the drill alone.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) json: Value,
    pub(crate) settings: Settings,
    pub(crate) parties: Parties,
    /// Where the fallback is, if the configuration says so.
    pub(crate) fallback_url: Option<String>,
    pub(crate) fallback_key: Option<String>,
}

/// Which groups of models play which part.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Parties {
    pub(crate) primary: String,
    /// Groups behind the primary that the blackout takes as well.
    pub(crate) others: Vec<String>,
    pub(crate) fallback: String,
    #[serde(skip)]
    pub(crate) primary_over_tls: String,
    /// Settings that the copy does not have.
    pub(crate) left_out: Vec<String>,
}

impl Copy {
    /// Reads a configuration, and puts the stand-in, which listens at `address`, in the place of all providers but the last
    /// of the primary's fallbacks. `primary` is needed if the configuration has several groups with fallbacks.
    pub(crate) fn of(
        path: &Path,
        primary: Option<&str>,
        address: SocketAddr,
        master_key: &str,
    ) -> Result<Self, DrillError> {
        let text = backstop_input::read_text_file(path, CONFIG_BYTES_MAX)
            .map_err(|error| DrillError::at(path, error))?;
        let config: Value = serde_saphyr::from_str(&text)
            .map_err(|error| DrillError::at(path, format!("no YAML: {error}")))?;
        Self::made(config, primary, address, master_key)
            .map_err(|reason| DrillError::at(path, reason))
    }

    fn made(
        mut config: Value,
        primary: Option<&str>,
        address: SocketAddr,
        master_key: &str,
    ) -> Result<Self, String> {
        if config.get("include").is_some() {
            return Err("`include` is not followed: give one file that has everything".into());
        }
        let groups = groups(&config)?;
        let lists = Lists::read(&config);
        let primary = lists.primary(primary, &groups)?;
        let chain = lists.targets("fallbacks", &primary);
        let fallback = chain
            .last()
            .cloned()
            .ok_or_else(|| format!("`fallbacks` has nothing behind {primary:?}"))?;
        let others: BTreeSet<String> = FALLBACK_LISTS
            .iter()
            .flat_map(|list| lists.targets(list, &primary))
            .filter(|group| *group != fallback && *group != primary)
            .collect();
        let others: Vec<String> = others.into_iter().collect();
        for group in others.iter().chain([&fallback, &primary]) {
            if !groups.contains(group) {
                return Err(format!("`model_list` has no group {group:?}"));
            }
        }
        let settings = Settings::of(&config, &primary);
        let left_out = leave_out(&mut config);
        let (fallback_url, fallback_key) = whereabouts(&config, &fallback);
        stand_in_for(&mut config, &primary, &others, &fallback, address);
        lists.write(&mut config, &primary);
        section(&mut config, "general_settings").insert("master_key".into(), json!(master_key));
        Ok(Self {
            json: config,
            settings,
            parties: Parties {
                primary,
                others,
                fallback,
                primary_over_tls: OVER_TLS.into(),
                left_out,
            },
            fallback_url,
            fallback_key,
        })
    }
}

/// The names of chat groups, each once.
fn groups(config: &Value) -> Result<Vec<String>, String> {
    let list = config["model_list"]
        .as_array()
        .ok_or("it has no `model_list`")?;
    let mut groups = Vec::new();
    for entry in list {
        let name = entry["model_name"]
            .as_str()
            .ok_or("an entry of `model_list` has no `model_name`")?;
        let mode = entry["model_info"]["mode"].as_str().unwrap_or("chat");
        if mode == "chat" && !groups.iter().any(|known| known == name) {
            groups.push(name.to_owned());
        }
    }
    Ok(groups)
}

/// A section of a configuration, which is made if there is none.
pub(super) fn section<'a>(config: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    if !config[name].is_object() {
        config[name] = json!({});
    }
    match &mut config[name] {
        Value::Object(section) => section,
        _ => unreachable!("it was just made one"),
    }
}

fn leave_out(config: &mut Value) -> Vec<String> {
    let mut left_out = Vec::new();
    for (name, keys) in LEFT_OUT {
        for key in keys {
            if section(config, name).remove(*key).is_some() {
                left_out.push(format!("{name}.{key}"));
            }
        }
    }
    left_out
}

/// Address and key of the fallback's first deployment, looked up in the environment as LiteLLM does.
fn whereabouts(config: &Value, fallback: &str) -> (Option<String>, Option<String>) {
    let list = config["model_list"].as_array().into_iter().flatten();
    let mut entries = list.filter(|entry| entry["model_name"] == fallback);
    let Some(entry) = entries.next() else {
        return (None, None);
    };
    let value = |name: &str| {
        let text = entry["litellm_params"][name].as_str()?;
        match text.strip_prefix("os.environ/") {
            Some(variable) => std::env::var(variable).ok(),
            None => Some(text.to_owned()),
        }
    };
    (value("api_base"), value("api_key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
defaults: &defaults {timeout: 20}
model_list:
  - model_name: big
    litellm_params: {<<: *defaults, model: azure/gpt, api_base: https://provider.example, api_version: '1', api_key: secret}
  - model_name: second
    litellm_params: {model: hosted_vllm/x, api_base: http://second.example/v1}
  - model_name: last
    litellm_params: {model: hosted_vllm/demo, api_base: http://127.0.0.1:8000/v1}
  - model_name: vectors
    litellm_params: {model: openai/e}
    model_info: {mode: embedding}
litellm_settings: {callbacks: [langfuse]}
router_settings:
  fallbacks: [{big: [second, last]}, {vectors: [last]}]
  content_policy_fallbacks: [{big: [last]}]
";

    fn copied(text: &str, primary: Option<&str>) -> Result<Copy, String> {
        let config = serde_saphyr::from_str(text).unwrap();
        Copy::made(
            config,
            primary,
            "127.0.0.1:4010".parse().unwrap(),
            "sk-drill",
        )
    }

    #[test]
    fn all_but_the_last_link_become_the_stand_in() {
        let copy = copied(CONFIG, None).unwrap();
        assert_eq!(copy.parties.primary, "big");
        assert_eq!(copy.parties.others, ["second"]);
        assert_eq!(copy.parties.fallback, "last");
        assert_eq!(copy.parties.left_out, ["litellm_settings.callbacks"]);
        assert_eq!(
            copy.fallback_url.as_deref(),
            Some("http://127.0.0.1:8000/v1")
        );
        let text = copy.json["model_list"].to_string();
        for gone in [
            "provider.example",
            "second.example",
            "secret",
            "api_version",
            "vectors",
        ] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
        assert!(!copy.json.to_string().contains("null"), "{}", copy.json);
        let big = &copy.json["model_list"][0]["litellm_params"];
        assert_eq!(big["model"], "openai/gpt");
        assert_eq!(big["api_base"], "http://127.0.0.1:4010/v1");
        assert_eq!(big["timeout"], 20);
        assert_eq!(
            copy.json["model_list"][1]["litellm_params"]["api_base"],
            "https://127.0.0.1:4010/v1"
        );
        assert_eq!(
            copy.json["router_settings"]["fallbacks"],
            json!([{"big": ["second", "last"]}, {"vectors": ["last"]}, {OVER_TLS: ["second", "last"]}])
        );
        assert_eq!(copy.json["general_settings"]["master_key"], "sk-drill");
    }

    #[test]
    fn default_fallbacks_make_a_primary_of_what_is_left() {
        let text = CONFIG.replace(
            "fallbacks: [{big: [second, last]}, {vectors: [last]}]",
            "default_fallbacks: [second, last]",
        );
        let copy = copied(&text, None).unwrap();
        assert_eq!(
            (
                copy.parties.primary.as_str(),
                copy.parties.fallback.as_str()
            ),
            ("big", "last")
        );
    }

    #[test]
    fn a_configuration_that_does_not_say_which_is_refused() {
        let several = CONFIG.replace("{vectors: [last]}", "{second: [last]}");
        assert!(copied(&several, None).unwrap_err().contains("--model"));
        assert_eq!(
            copied(&several, Some("second")).unwrap().parties.primary,
            "second"
        );
        assert!(copied(CONFIG, Some("last")).unwrap_err().contains("last"));
        assert!(
            copied("model_list: []", None)
                .unwrap_err()
                .contains("fallback")
        );
        assert!(copied("{}", None).unwrap_err().contains("model_list"));
        assert!(
            copied(
                &CONFIG.replace("model_name: last", "model_name: first"),
                None
            )
            .is_err()
        );
    }
}
