//! A LiteLLM proxy that the drill starts itself, from a copy of the operator's configuration.

mod config;
mod lists;
mod process;
mod settings;
mod substitution;

pub(crate) use self::config::{Copy, Parties};
pub(crate) use self::process::Gateway;
pub(crate) use self::settings::Settings;
