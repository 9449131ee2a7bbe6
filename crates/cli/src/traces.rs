//! Starts the process that carries traces to a collector, and talks to it.
//!
//! The server itself connects to nobody. The process is started before the server gives up starting others, and ends
//! with it, when there is nothing more to read.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use backstop_server::{SpanExporter, Traces};

use crate::args::ServeArgs;
use crate::trace_exporter::{DONE, READY};

/// Names the service, as everywhere with OpenTelemetry.
const SERVICE_NAME_VARIABLE: &str = "OTEL_SERVICE_NAME";
const USUAL_SERVICE_NAME: &str = "backstop";

/// A process that carries traces, and what is said and heard.
pub(crate) struct ExporterProcess {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Why it carries nothing.
    failure: Option<String>,
}

/// Starts the process, if these settings want one.
pub(crate) fn start_process(args: &ServeArgs) -> Result<Option<ExporterProcess>, String> {
    let Some(endpoint) = &args.traces.otlp_traces_endpoint else {
        return Ok(None);
    };
    let failed = |reason: String| format!("cannot start the exporter of traces: {reason}");
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    command.arg("trace-exporter").arg(endpoint.to_string());
    if args.server.no_sandbox {
        command.arg("--no-sandbox");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(input), Some(output)) => Ok(Some(ExporterProcess {
            input,
            output: BufReader::new(output),
            failure: None,
        })),
        _ => Err(failed("it has no pipes".to_owned())),
    }
}

/// Begins to export what is recorded of requests.
pub(crate) fn start(
    args: &ServeArgs,
    process: Option<ExporterProcess>,
) -> Result<Option<Arc<Traces>>, String> {
    let Some(process) = process else {
        return Ok(None);
    };
    let name = std::env::var(SERVICE_NAME_VARIABLE);
    let name = name.unwrap_or_else(|_| USUAL_SERVICE_NAME.to_owned());
    let ratio = args.traces.otlp_traces_sample_ratio;
    let traces = Traces::start(Box::new(process), name, ratio);
    traces
        .map(|traces| Some(Arc::new(traces)))
        .map_err(|error| format!("cannot export traces: {error}"))
}

impl ExporterProcess {
    fn hear(&mut self, expected: &str) -> Result<(), String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => self.fail("the exporter of traces has ended"),
            Ok(_) if line.trim_end() == expected => Ok(()),
            Ok(_) => Err(line.trim_end().to_owned()),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// It carries nothing any more.
    fn fail(&mut self, reason: &str) -> Result<(), String> {
        self.failure = Some(reason.to_owned());
        Err(reason.to_owned())
    }
}

impl SpanExporter for ExporterProcess {
    fn begin(&mut self) -> Result<(), String> {
        let begun = self.hear(READY);
        self.failure = begun.clone().err();
        begun
    }

    fn export(&mut self, batch: &str) -> Result<(), String> {
        if let Some(reason) = &self.failure {
            return Err(reason.clone());
        }
        let line = format!("{batch}\n");
        match self.input.write_all(line.as_bytes()) {
            Ok(()) => self.hear(DONE),
            Err(error) => self.fail(&error.to_string()),
        }
    }
}
