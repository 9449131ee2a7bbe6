//! What comes from outside, read within limits: small files, and JSON by the number of its values.
//!
//! A limit on bytes alone does not bound memory: parsed JSON can take a hundred times the bytes of
//! its text, and a file can have no end.

mod files;
mod json;
mod scan;

pub use files::{read_file, read_text_file};
pub use json::{JsonError, VALUE_BYTES, ValueAllowance};
pub use scan::ValueScan;
