//! Runs step plans on a device: batches, KV memory, sampling.
