//! The portable backend: a model's operations over candle tensors.
