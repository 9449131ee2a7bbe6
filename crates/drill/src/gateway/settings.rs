//! The settings of LiteLLM by which a blackout goes well or badly.

use serde::Serialize;
use serde_json::{Map, Value};

/// The lists that say who answers instead of whom.
pub(super) const FALLBACK_LISTS: [&str; 3] = [
    "fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
];
/// What a deployment may set for itself.
const OF_A_DEPLOYMENT: [&str; 5] = [
    "model",
    "timeout",
    "stream_timeout",
    "max_retries",
    "cooldown_time",
];
const OF_ALL: [&str; 14] = [
    "fallbacks",
    "default_fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "enable_mid_stream_fallback_continuation",
    "num_retries",
    "retry_after",
    "retry_policy",
    "request_timeout",
    "timeout",
    "stream_timeout",
    "allowed_fails",
    "allowed_fails_policy",
    "cooldown_time",
];

/// Those that a configuration states, by the place where it does so: `router_settings.num_retries`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Settings(Map<String, Value>);

impl Settings {
    pub(super) fn of(config: &Value, primary: &str) -> Self {
        let mut stated = Map::new();
        let mut state = |place: &str, of: &Value, names: &[&str]| {
            for name in names {
                if !of[*name].is_null() {
                    stated.insert(format!("{place}.{name}"), of[*name].clone());
                }
            }
        };
        let list = config["model_list"].as_array().into_iter().flatten();
        for entry in list.filter(|entry| entry["model_name"] == primary) {
            state("litellm_params", &entry["litellm_params"], &OF_A_DEPLOYMENT);
        }
        for section in ["router_settings", "litellm_settings"] {
            state(section, &config[section], &OF_ALL);
        }
        Self(stated)
    }

    /// Where a setting stands, and its value.
    pub(crate) fn stated(&self, name: &str) -> Option<String> {
        let here = |(place, _): &(&String, &Value)| place.rsplit('.').next() == Some(name);
        let found = self.0.iter().find(here)?;
        Some(format!("{} is {}", found.0, found.1))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }
}
