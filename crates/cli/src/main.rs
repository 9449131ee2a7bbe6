//! The last link in an LLM gateway fallback chain.
fn main() {}
