//! Sampling against naive references, and its distribution.
