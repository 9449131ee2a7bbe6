//! Speed under rising load, from the results of `bench serve` or of vLLM's `bench serve --save-result`.
//!
//! Both have, somewhere in their JSON, objects with `output_throughput` and `request_throughput`; what is around such an object
//! says under which load it was measured.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::QualifyError;

const BENCH_BYTES_MAX: u64 = 256 << 20;
const POINTS_MAX: usize = 500;
/// How deep a result may lie.
const DEPTH_MAX: usize = 12;
/// Of requests: with more errors, a load counts as too high.
const ERROR_RATE_MAX: f64 = 0.01;

/// All that was measured, by load.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Speed {
    pub(crate) points: Vec<Point>,
    /// The load that the benchmark itself found to be the highest good one.
    pub(crate) capacity: Option<f64>,
    /// Runs whose numbers the benchmark itself does not vouch for; they are left out.
    pub(crate) invalid: usize,
}

/// What is raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scale {
    /// Clients, each with one request at a time.
    #[default]
    Clients,
    /// Requests a second.
    Rate,
}

/// One load.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Point {
    pub(crate) load: f64,
    pub(crate) scale: Scale,
    pub(crate) requests: Option<u64>,
    pub(crate) error_rate: Option<f64>,
    /// Of requests: refused with 429 or 503, which is how a server sheds load.
    pub(crate) shed_rate: Option<f64>,
    pub(crate) requests_per_s: Option<f64>,
    pub(crate) output_tokens_per_s: Option<f64>,
    pub(crate) input_tokens_per_s: Option<f64>,
    pub(crate) ttft_p50_s: Option<f64>,
    pub(crate) ttft_p99_s: Option<f64>,
    pub(crate) tpot_p50_s: Option<f64>,
    pub(crate) tpot_p99_s: Option<f64>,
}

impl Point {
    /// For people.
    pub(crate) fn load_text(&self) -> String {
        let load = backstop_pages::number(self.load);
        match self.scale {
            Scale::Clients if self.load == 1.0 => "1 client".to_owned(),
            Scale::Clients => format!("{load} clients"),
            Scale::Rate => format!("{load} requests a second"),
        }
    }

    /// Whether nearly all requests were answered.
    pub(crate) fn is_served(&self) -> bool {
        self.error_rate.is_none_or(|rate| rate <= ERROR_RATE_MAX)
    }
}

impl Speed {
    /// The load with most tokens of answers a second, of those at which nearly all was answered.
    pub(crate) fn best(&self) -> Option<&Point> {
        let served = self.points.iter().filter(|point| point.is_served());
        let tokens = |point: &Point| point.output_tokens_per_s.unwrap_or(0.0);
        served.max_by(|one, other| tokens(one).total_cmp(&tokens(other)))
    }

    /// The lowest load at which requests were refused with 429 or 503.
    pub(crate) fn sheds_from(&self) -> Option<&Point> {
        self.points
            .iter()
            .find(|point| point.shed_rate.is_some_and(|rate| rate > 0.0))
    }
}

/// Reads one file or several, as one curve.
pub(super) fn read(paths: &[impl AsRef<Path>]) -> Result<Option<Speed>, QualifyError> {
    let mut speed = Speed::default();
    for path in paths {
        let path = path.as_ref();
        let bytes = backstop_input::read_file(path, BENCH_BYTES_MAX)
            .map_err(|error| QualifyError::at(path, error))?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| QualifyError::at(path, format!("it is no JSON: {error}")))?;
        let before = speed.points.len();
        find(&value, None, &mut speed, 0);
        if speed.points.len() == before {
            let reason = "it has no results of a benchmark (output_throughput, request_throughput)";
            return Err(QualifyError::at(path, reason));
        }
        if speed.points.len() > POINTS_MAX {
            let reason = format!("there are more than {POINTS_MAX} results");
            return Err(QualifyError::at(path, reason));
        }
    }
    let order = |point: &Point| (point.scale == Scale::Rate, point.load);
    speed.points.sort_by(|one, other| {
        let ((a, x), (b, y)) = (order(one), order(other));
        a.cmp(&b).then(x.total_cmp(&y))
    });
    Ok((!speed.points.is_empty()).then_some(speed))
}

/// Collects results, each with the load of the nearest object around it that names one.
fn find(value: &Value, load: Option<(f64, Scale)>, speed: &mut Speed, depth: usize) {
    if depth > DEPTH_MAX || speed.points.len() > POINTS_MAX {
        return;
    }
    match value {
        Value::Array(items) => items
            .iter()
            .for_each(|item| find(item, load, speed, depth + 1)),
        Value::Object(fields) => {
            let load = load_of(fields).or(load);
            if fields.contains_key("probes") {
                speed.capacity = speed
                    .capacity
                    .or(fields.get("load").and_then(Value::as_f64));
            }
            if fields.get("valid") == Some(&Value::Bool(false)) {
                speed.invalid += 1;
                return;
            }
            // Backstop's own results have vLLM's names as well, beside a summary that has more.
            let results = [
                fields.get("summary").and_then(Value::as_object),
                Some(fields),
            ];
            let results = results.into_iter().flatten();
            if let Some(result) = results.into_iter().find(|fields| is_result(fields)) {
                speed.points.extend(point(result, load));
                return;
            }
            fields
                .values()
                .for_each(|item| find(item, load, speed, depth + 1));
        }
        _ => {}
    }
}

fn is_result(fields: &Map<String, Value>) -> bool {
    fields.contains_key("output_throughput") && fields.contains_key("request_throughput")
}

/// A rate is said before clients are: with both, the number of clients is only a limit.
fn load_of(fields: &Map<String, Value>) -> Option<(f64, Scale)> {
    let number = |names: &[&str]| {
        let found = names.iter().find_map(|name| fields.get(*name)?.as_f64());
        found.filter(|value| value.is_finite() && *value > 0.0)
    };
    if let (Some(load), Some(scale)) = (
        number(&["load"]),
        fields.get("scale").and_then(Value::as_str),
    ) {
        let scale = if scale == "rate" {
            Scale::Rate
        } else {
            Scale::Clients
        };
        return Some((load, scale));
    }
    let rate = number(&["rate", "request_rate"]).map(|rate| (rate, Scale::Rate));
    let clients = number(&["concurrency", "max_concurrency", "clients"]);
    rate.or(clients.map(|clients| (clients, Scale::Clients)))
}

fn point(fields: &Map<String, Value>, load: Option<(f64, Scale)>) -> Option<Point> {
    let number = |name: &str| {
        fields
            .get(name)
            .and_then(Value::as_f64)
            .filter(|value| value.is_finite())
    };
    let (load, scale) =
        load.or(number("max_concurrent_requests").map(|clients| (clients, Scale::Clients)))?;
    let output = number("output_throughput");
    let total = number("total_token_throughput");
    let completed = number("completed");
    let requests = number("requests").or(number("num_prompts"));
    let failed = number("failed");
    let error_rate = number("error_rate").or(match (requests, failed, completed) {
        (_, Some(failed), Some(completed)) if failed + completed > 0.0 => {
            Some(failed / (failed + completed))
        }
        (Some(requests), None, Some(completed)) if requests > 0.0 => {
            Some(1.0 - completed / requests)
        }
        _ => None,
    });
    let quantile = |name: &str, percent: f64| {
        let seconds = fields.get(&format!("{name}_s"));
        let spread = seconds.and_then(|value| spread(value, percent));
        spread.or_else(|| flat(fields, name, percent))
    };
    Some(Point {
        load,
        scale,
        requests: requests.map(|requests| requests as u64),
        error_rate,
        shed_rate: shed_rate(fields, requests),
        requests_per_s: number("request_throughput"),
        output_tokens_per_s: output,
        input_tokens_per_s: total
            .zip(output)
            .map(|(total, output)| (total - output).max(0.0)),
        ttft_p50_s: quantile("ttft", 50.0),
        ttft_p99_s: quantile("ttft", 99.0),
        tpot_p50_s: quantile("tpot", 50.0),
        tpot_p99_s: quantile("tpot", 99.0),
    })
}

/// `{"median": 1, "percentiles": [{"percent": 99, "value": 2}]}`, in seconds.
fn spread(value: &Value, percent: f64) -> Option<f64> {
    let listed = value["percentiles"].as_array().and_then(|list| {
        let found = list
            .iter()
            .find(|entry| entry["percent"].as_f64() == Some(percent))?;
        found["value"].as_f64()
    });
    let median = || value["median"].as_f64().filter(|_| percent == 50.0);
    listed.or_else(median)
}

/// `median_ttft_ms` and `p99_ttft_ms`, as vLLM has them.
fn flat(fields: &Map<String, Value>, name: &str, percent: f64) -> Option<f64> {
    let names = match percent == 50.0 {
        true => vec![format!("median_{name}_ms"), format!("p50_{name}_ms")],
        false => vec![format!("p{percent}_{name}_ms")],
    };
    let found = names.iter().find_map(|name| fields.get(name)?.as_f64());
    found.map(|milliseconds| milliseconds / 1000.0)
}

/// Errors are counted by kinds, which for a status begin with it or end with it.
fn shed_rate(fields: &Map<String, Value>, requests: Option<f64>) -> Option<f64> {
    let errors = fields.get("errors")?.as_object()?;
    let requests = requests.filter(|requests| *requests > 0.0)?;
    let is_shed = |kind: &str| kind.contains("429") || kind.contains("503");
    let shed = errors.iter().filter(|(kind, _)| is_shed(kind));
    let shed = shed.filter_map(|(_, count)| count.as_u64()).sum::<u64>() as f64;
    Some(shed / requests)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(value: &Value) -> Speed {
        let mut speed = Speed::default();
        find(value, None, &mut speed, 0);
        speed
    }

    #[test]
    fn results_are_found_with_the_load_around_them() {
        let summary = |output: f64, shed: u64| {
            json!({
                "requests": 100, "completed": 100 - shed, "failed": shed, "error_rate": shed as f64 / 100.0,
                "errors": {"http_429": shed}, "request_throughput": 2.0, "output_throughput": output,
                "total_token_throughput": output * 3.0,
                "ttft_s": {"median": 0.2, "percentiles": [{"percent": 99.0, "value": 0.9}]},
            })
        };
        let speed = found(&json!({
            "capacity": {"scale": "concurrency", "load": 8.0, "probes": []},
            "runs": [
                {"concurrency": 1, "summary": summary(50.0, 0)},
                {"concurrency": 8, "rate": null, "summary": summary(200.0, 0)},
                {"concurrency": 64, "output_throughput": 260.0, "request_throughput": 2.0, "summary": summary(260.0, 30)},
                {"concurrency": 80, "valid": false, "summary": summary(900.0, 0)},
            ]
        }));
        assert_eq!((speed.points.len(), speed.invalid), (3, 1));
        assert_eq!(speed.capacity, Some(8.0));
        let best = speed.best().unwrap();
        assert_eq!((best.load, best.input_tokens_per_s), (8.0, Some(400.0)));
        assert_eq!(
            (best.ttft_p50_s, best.ttft_p99_s, best.tpot_p50_s),
            (Some(0.2), Some(0.9), None)
        );
        let shed = speed.sheds_from().unwrap();
        assert_eq!((shed.load, shed.shed_rate), (64.0, Some(0.3)));
        assert_eq!(shed.load_text(), "64 clients");
    }

    #[test]
    fn vllms_results_are_read_too() {
        let speed = found(&json!({
            "request_rate": 4.0, "max_concurrency": 16, "num_prompts": 10, "completed": 10,
            "request_throughput": 3.9, "output_throughput": 120.0, "total_token_throughput": 240.0,
            "median_ttft_ms": 150.0, "p99_ttft_ms": 300.0, "median_tpot_ms": 20.0,
        }));
        let point = &speed.points[0];
        assert_eq!((point.scale, point.load), (Scale::Rate, 4.0));
        assert_eq!(
            (point.ttft_p50_s, point.ttft_p99_s, point.tpot_p50_s),
            (Some(0.15), Some(0.3), Some(0.02))
        );
        assert_eq!(point.error_rate, Some(0.0));
    }

    #[test]
    fn what_is_no_benchmark_has_no_points() {
        assert!(
            found(&json!({"verdict": "passed", "failures": [1, 2]}))
                .points
                .is_empty()
        );
        assert!(
            found(&json!({"request_throughput": 1, "output_throughput": 2}))
                .points
                .is_empty()
        );
    }
}
