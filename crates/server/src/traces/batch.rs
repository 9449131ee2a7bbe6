//! Spans of one batch, as OTLP has them in JSON.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::span::{attribute, span};
use crate::exchange::Past;
use crate::probes::VERSION;

/// Spans that go together.
#[derive(Debug)]
pub(super) struct Batch {
    resource: Value,
    spans: Vec<Value>,
}

impl Batch {
    /// Without spans, of a service of this name.
    pub(super) fn new(service_name: &str) -> Self {
        let resource = json!({
            "attributes": [
                attribute("service.name", service_name.into()),
                attribute("service.version", VERSION.into()),
            ]
        });
        Self {
            resource,
            spans: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Adds an exchange that was over at a time.
    pub(super) fn add(&mut self, past: &Past, at: SystemTime) {
        self.spans.push(span(past, at));
    }

    /// An `ExportTraceServiceRequest` without line breaks.
    pub(super) fn to_line(&self) -> String {
        let scope = json!({ "name": "backstop", "version": VERSION });
        let of_scope = json!({ "scope": scope, "spans": self.spans });
        let of_resource = json!({ "resource": self.resource, "scopeSpans": [of_scope] });
        json!({ "resourceSpans": [of_resource] }).to_string()
    }
}
