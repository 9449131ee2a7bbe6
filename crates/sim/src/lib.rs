//! Seeded simulator of the scheduler and the KV accounting.
