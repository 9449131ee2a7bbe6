//! HTTP: routes, streams, keys, limits, health and metrics.
