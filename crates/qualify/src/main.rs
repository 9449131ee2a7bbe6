//! The binary `backstop-qualify`.

fn main() {}
