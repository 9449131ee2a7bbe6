//! Model architectures: one file each and one line in the registry.
