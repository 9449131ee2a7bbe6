//! The stand-in in the place of providers.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::config::section;

/// The group that has the primary over TLS.
pub(super) const OVER_TLS: &str = "backstop-drill-over-tls";
/// Providers whose prefix says that an address of OpenAI's API follows; any other is stood in for as `openai`.
const OPENAI_PREFIXES: [&str; 4] = ["openai", "hosted_vllm", "openai_like", "litellm_proxy"];

/// Keeps the groups that take part, and gives those that a blackout takes the stand-in's address.
pub(super) fn stand_in_for(
    config: &mut Value,
    primary: &str,
    others: &[String],
    fallback: &str,
    address: SocketAddr,
) {
    let Some(list) = config["model_list"].as_array_mut() else {
        return;
    };
    let mut kept = Vec::new();
    for entry in list.iter() {
        let name = entry["model_name"].as_str().unwrap_or_default();
        if name == fallback {
            kept.push(entry.clone());
        } else if name == primary || others.iter().any(|other| other == name) {
            kept.push(stood_in(entry, &format!("http://{address}/v1")));
        }
        if name == primary {
            let mut entry = stood_in(entry, &format!("https://{address}/v1"));
            entry["model_name"] = json!(OVER_TLS);
            // Indexing would write a null where there is none.
            if let Some(info) = entry.get_mut("model_info").and_then(Value::as_object_mut) {
                info.remove("id");
            }
            kept.push(entry);
        }
    }
    *list = kept;
}

/// A deployment with another address, and without what belongs to the old one.
fn stood_in(entry: &Value, url: &str) -> Value {
    const OF_THE_ADDRESS: [&str; 5] = [
        "api_version",
        "base_url",
        "custom_llm_provider",
        "extra_headers",
        "organization",
    ];
    let mut entry = entry.clone();
    let parameters = section(&mut entry, "litellm_params");
    let is_of_address = |name: &str| {
        OF_THE_ADDRESS.contains(&name)
            || ["aws_", "azure_", "vertex_"]
                .iter()
                .any(|begin| name.starts_with(begin))
    };
    parameters.retain(|name, _| !is_of_address(name));
    let model = parameters
        .get("model")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let (prefix, name) = model.split_once('/').unwrap_or(("openai", model));
    let prefix = if OPENAI_PREFIXES.contains(&prefix) {
        prefix
    } else {
        "openai"
    };
    let model = format!("{prefix}/{name}");
    parameters.insert("model".into(), json!(model));
    parameters.insert("api_base".into(), json!(url));
    parameters.insert("api_key".into(), json!("the-stand-in-asks-for-none"));
    entry
}
