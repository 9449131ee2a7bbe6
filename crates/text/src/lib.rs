//! Tokenizer, chat template, incremental decoding and output parsing.
