//! Checkpoints on disk: safetensors, compressed-tensors, configuration, manifests.
