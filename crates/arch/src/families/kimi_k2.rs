//! Kimi K2 (`kimi_k2`): DeepSeek-V3 with other numbers.
//!
//! Its checkpoints bring code of their own, which is `models/deepseek_v3` of Hugging Face
//! transformers but for its name.

use super::deepseek_v3::Family;

pub(crate) const FAMILY: Family = Family::new("kimi_k2");
