//! Settings of traces, named as vLLM's.

use clap::Args;

use crate::trace_exporter::Endpoint;

/// Where traces go, and how many.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Traces")]
pub(crate) struct TracesArgs {
    /// Collector that gets a span for each request that may use a model, such as http://127.0.0.1:4318: OTLP over
    /// HTTP, as JSON, at /v1/traces unless the address has a path. A process of its own connects to it, the server does
    /// not. OTEL_SERVICE_NAME says what the service is called.
    #[arg(long, env = "BACKSTOP_OTLP_TRACES_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_traces_endpoint: Option<Endpoint>,

    /// How many are recorded of those requests whose `traceparent` does not decide it: from 0, none, to 1, all.
    #[arg(long, env = "BACKSTOP_OTLP_TRACES_SAMPLE_RATIO", value_name = "RATIO", value_parser = parse_ratio, default_value = "1")]
    pub(crate) otlp_traces_sample_ratio: f64,
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok();
    let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// What `trace-exporter` is told by the server that starts it.
#[derive(Clone, Debug, Args)]
pub(crate) struct TraceExporterArgs {
    /// The collector.
    pub(crate) endpoint: Endpoint,

    /// Give up nothing.
    #[arg(long)]
    pub(crate) no_sandbox: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_lie_between_none_and_all() {
        assert_eq!(parse_ratio("0.25"), Ok(0.25));
        assert_eq!((parse_ratio("0"), parse_ratio("1")), (Ok(0.0), Ok(1.0)));
        for text in ["-0.1", "1.5", "NaN", "half", ""] {
            assert!(parse_ratio(text).is_err(), "{text}");
        }
    }
}
