//! Who answers instead of whom.

use serde_json::{Value, json};

use super::config::section;
use super::settings::FALLBACK_LISTS;
use super::substitution::OVER_TLS;

/// The lists of fallbacks, wherever the configuration has them.
pub(super) struct Lists {
    lists: Vec<(String, &'static str, Value)>,
    default: Vec<String>,
}

impl Lists {
    pub(super) fn read(config: &Value) -> Self {
        let mut lists = Vec::new();
        let mut default = Vec::new();
        for section in ["router_settings", "litellm_settings"] {
            for list in FALLBACK_LISTS {
                let found = &config[section][list];
                if !found.is_null() {
                    lists.push((section.to_owned(), list, found.clone()));
                }
            }
            default.extend(names(&config[section]["default_fallbacks"]));
        }
        Self { lists, default }
    }

    /// The groups that a list of this name has behind a group. Those of `fallbacks` are the default ones if it has none.
    pub(super) fn targets(&self, list: &str, group: &str) -> Vec<String> {
        let named = self.lists.iter().filter(|(_, name, _)| *name == list);
        let entries = named.flat_map(|(_, _, value)| value.as_array().into_iter().flatten());
        let targets: Vec<String> = entries.flat_map(|entry| names(&entry[group])).collect();
        if targets.is_empty() && list == "fallbacks" {
            self.default
                .iter()
                .filter(|name| *name != group)
                .cloned()
                .collect()
        } else {
            targets
        }
    }

    /// The group whose loss is rehearsed.
    pub(super) fn primary(
        &self,
        wanted: Option<&str>,
        groups: &[String],
    ) -> Result<String, String> {
        let has_fallback = |group: &&String| !self.targets("fallbacks", group).is_empty();
        let candidates: Vec<&String> = groups
            .iter()
            .filter(has_fallback)
            .filter(|group| !self.default.contains(*group))
            .collect();
        match (wanted, candidates.as_slice()) {
            (Some(wanted), found) if found.iter().any(|group| *group == wanted) => Ok(wanted.to_owned()),
            (Some(wanted), _) => Err(format!(
                "no chat group {wanted:?} has a fallback, by `fallbacks` or `default_fallbacks`"
            )),
            (None, [only]) => Ok((*only).clone()),
            (None, []) => Err("no chat group of `model_list` has a fallback, by `fallbacks` or `default_fallbacks`".into()),
            (None, several) => Err(format!("several groups have fallbacks: --model says which is the primary, of {several:?}")),
        }
    }

    /// Gives the primary over TLS the same fallbacks. Entries for groups that are left out stay: a list that forgets the
    /// primary is not one that is empty.
    pub(super) fn write(self, config: &mut Value, primary: &str) {
        for (name, list, mut value) in self.lists {
            if let Some(entries) = value.as_array_mut() {
                let same: Vec<Value> = entries
                    .iter()
                    .filter(|entry| !entry[primary].is_null())
                    .map(|entry| json!({ OVER_TLS: entry[primary] }))
                    .collect();
                entries.extend(same);
            }
            section(config, &name).insert(list.to_owned(), value);
        }
    }
}

/// The names of a list; LiteLLM allows a name alone, and objects that have one as `model`.
fn names(value: &Value) -> Vec<String> {
    let name = |value: &Value| {
        value
            .as_str()
            .or_else(|| value["model"].as_str())
            .map(str::to_owned)
    };
    match value {
        Value::Array(values) => values.iter().filter_map(name).collect(),
        other => name(other).into_iter().collect(),
    }
}
