//! Recorded arrivals: files of timestamps, with lengths where they have some.
//!
//! Known are JSON lines as Mooncake's traces have them (`timestamp` in milliseconds, `input_length`, `output_length`,
//! `hash_ids`), and CSV with a head, as BurstGPT's (`Timestamp` in seconds, `Request tokens`, `Response tokens`) and Azure's
//! (`TIMESTAMP` as a date, `ContextTokens`, `GeneratedTokens`).

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::LoadError;

const FILE_BYTES_MAX: u64 = 512 << 20;
const TIMESTAMPS: [&str; 1] = ["timestamp"];
const INPUTS: [&str; 3] = ["input_length", "request tokens", "contexttokens"];
const OUTPUTS: [&str; 3] = ["output_length", "response tokens", "generatedtokens"];

/// A request that came once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arrival {
    /// How long after the first.
    pub after: Duration,
    /// Tokens of its prompt.
    pub input_tokens: Option<u32>,
    /// Tokens of its answer.
    pub output_tokens: Option<u32>,
    /// Names of the prompt's blocks; blocks of the same name were the same.
    pub blocks: Vec<u64>,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// JSON lines; timestamps are milliseconds, unless it is said otherwise.
    JsonLines,
    /// CSV with a head; timestamps are seconds or dates, unless it is said otherwise.
    Csv,
}

impl TraceFormat {
    /// By the name's end.
    ///
    /// # Errors
    ///
    /// If it is neither.
    pub fn of(path: &Path) -> Result<Self, LoadError> {
        match path.extension().and_then(|end| end.to_str()) {
            Some("jsonl" | "ndjson" | "json") => Ok(Self::JsonLines),
            Some("csv") => Ok(Self::Csv),
            _ => Err(LoadError::at(
                path,
                "recorded arrivals are .jsonl or .csv files",
            )),
        }
    }

    fn seconds_per_unit(self) -> f64 {
        match self {
            Self::JsonLines => 1e-3,
            Self::Csv => 1.0,
        }
    }
}

/// The first `count_max` arrivals of a file. Those whose answer had no tokens, which failed, are passed over.
/// `seconds_per_unit` is what a 1 in the timestamps means; dates are seconds.
///
/// # Errors
///
/// If the file cannot be read, or a line has no time.
pub fn trace_of_file(
    path: &Path,
    seconds_per_unit: Option<f64>,
    count_max: usize,
) -> Result<Vec<Arrival>, LoadError> {
    let format = TraceFormat::of(path)?;
    let text = backstop_input::read_text_file(path, FILE_BYTES_MAX)
        .map_err(|error| LoadError::at(path, error))?;
    let factor = seconds_per_unit.unwrap_or_else(|| format.seconds_per_unit());
    let mut rows = match format {
        TraceFormat::JsonLines => json_lines(path, &text, count_max)?,
        TraceFormat::Csv => csv(path, &text, count_max)?,
    };
    rows.sort_by(|one, other| one.timestamp.total_cmp(&other.timestamp));
    let Some(first) = rows.first().map(|row| row.timestamp) else {
        return Err(LoadError::at(path, "it has no arrivals"));
    };
    let arrival = |row: Row| {
        let after = Duration::try_from_secs_f64((row.timestamp - first) * factor);
        Ok(Arrival {
            after: after.map_err(|_| LoadError::at(path, "its timestamps are no times"))?,
            input_tokens: row.input_length,
            output_tokens: row.output_length,
            blocks: row.hash_ids,
        })
    };
    rows.into_iter().map(arrival).collect()
}

#[derive(Deserialize)]
struct Row {
    timestamp: f64,
    input_length: Option<u32>,
    output_length: Option<u32>,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

impl Row {
    fn has_answer(&self) -> bool {
        self.output_length != Some(0)
    }
}

fn json_lines(path: &Path, text: &str, count_max: usize) -> Result<Vec<Row>, LoadError> {
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty());
    let rows = lines.map(|(number, line)| {
        serde_json::from_str(line).map_err(|error| LoadError::at_line(path, number, error))
    });
    let with_answers =
        rows.filter(|row: &Result<Row, _>| row.as_ref().map_or(true, Row::has_answer));
    with_answers.take(count_max).collect()
}

fn csv(path: &Path, text: &str, count_max: usize) -> Result<Vec<Row>, LoadError> {
    let mut lines = (1..).zip(text.lines());
    let head = lines
        .next()
        .map_or("", |(_, line)| line)
        .trim_start_matches('\u{feff}');
    let names: Vec<String> = head
        .split(',')
        .map(|name| name.trim().to_lowercase())
        .collect();
    let column = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
    let timestamps = column(&TIMESTAMPS)
        .ok_or_else(|| LoadError::at_line(path, 1, "no column is called timestamp"))?;
    let (inputs, outputs) = (column(&INPUTS), column(&OUTPUTS));
    let row = |(number, line): (usize, &str)| {
        let refuse = |reason: &str| LoadError::at_line(path, number, reason);
        if line.contains('"') {
            return Err(refuse("quoted fields are not read"));
        }
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let length = |column: Option<usize>| {
            let field = column.map(|column| fields.get(column).copied().unwrap_or_default());
            let length = field.map(|field| field.parse::<f64>().map(|length| length as u32));
            length
                .transpose()
                .map_err(|_| refuse("a length is no number"))
        };
        Ok(Row {
            timestamp: fields
                .get(timestamps)
                .and_then(|field| timestamp(field))
                .ok_or_else(|| refuse("its timestamp is neither a number nor a date"))?,
            input_length: length(inputs)?,
            output_length: length(outputs)?,
            hash_ids: Vec::new(),
        })
    };
    let rows = lines.filter(|(_, line)| !line.trim().is_empty()).map(row);
    let with_answers = rows.filter(|row| row.as_ref().map_or(true, Row::has_answer));
    with_answers.take(count_max).collect()
}

/// A number, or a date as seconds.
fn timestamp(field: &str) -> Option<f64> {
    if let Ok(number) = field.parse::<f64>() {
        return number.is_finite().then_some(number);
    }
    let date = humantime::parse_rfc3339_weak(field).ok()?;
    let since = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str, unit: Option<f64>) -> Result<Vec<Arrival>, LoadError> {
        let directory = std::env::temp_dir().join(format!("backstop-trace-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        let read = trace_of_file(&path, unit, 100);
        std::fs::remove_file(&path).unwrap();
        read
    }

    #[test]
    fn mooncakes_traces_are_read() {
        let text = "{\"timestamp\": 500, \"input_length\": 9, \"output_length\": 3, \"hash_ids\": [1, 2]}\n\
                    {\"timestamp\": 2000, \"input_length\": 7, \"output_length\": 5}\n";
        let arrivals = read("mooncake.jsonl", text, None).unwrap();
        assert_eq!(arrivals[0].after, Duration::ZERO);
        assert_eq!(arrivals[0].blocks, [1, 2]);
        assert_eq!(arrivals[1].after, Duration::from_millis(1500));
        assert_eq!(arrivals[1].output_tokens, Some(5));
        let slower = read("slower.jsonl", text, Some(1e-2)).unwrap();
        assert_eq!(slower[1].after, Duration::from_secs(15));
    }

    #[test]
    fn burstgpts_and_azures_traces_are_read() {
        let text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                    5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n\
                    118.5,GPT-4,417,276,693,API log\n";
        let arrivals = read("burst.csv", text, None).unwrap();
        assert_eq!(arrivals.len(), 2, "one has failed");
        assert_eq!(arrivals[1].after, Duration::from_millis(113_500));
        assert_eq!(arrivals[1].input_tokens, Some(417));
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n\
                    2023-11-16 18:15:50.9951690,396,109\n";
        let arrivals = read("azure.csv", text, None).unwrap();
        assert!((arrivals[1].after.as_secs_f64() - 4.314_579).abs() < 1e-5);
        assert_eq!(arrivals[1].output_tokens, Some(109));
    }

    #[test]
    fn times_alone_will_do_and_nothing_less() {
        let arrivals = read("times.csv", "timestamp\n3\n1\n", None).unwrap();
        assert_eq!(arrivals[1].after, Duration::from_secs(2));
        assert_eq!(arrivals[1].input_tokens, None);
        for (name, text) in [
            ("empty.csv", "timestamp\n"),
            ("other.csv", "time\n1\n"),
            ("word.csv", "timestamp\nsoon\n"),
            ("quoted.csv", "timestamp\n\"1\"\n"),
            ("none.jsonl", "{\"input_length\": 3}\n"),
            ("name.txt", "1\n"),
        ] {
            assert!(read(name, text, None).is_err(), "{name}");
        }
    }
}
