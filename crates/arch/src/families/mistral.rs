//! Mistral (`mistral`): Llama with a sliding window in all layers, or in none.
//!
//! Reference implementation: `models/mistral` of Hugging Face transformers 5.23. A window of `w`
//! means `w` visible keys, the query's own among them.

use crate::config::{self, ShapeDefaults};
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    shape: ShapeDefaults {
        kv_heads: Some(8),
        ..ShapeDefaults::new(131_072)
    },
    differ: |fields, plan, _| {
        let visible_keys = config::common_window(fields, Some(4096));
        plan.set_windows(|_| visible_keys);
    },
    ..Family::new("mistral")
};
