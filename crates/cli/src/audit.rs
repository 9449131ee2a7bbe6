//! The audit log: opened for `serve`, and read by `backstop audit`.

use std::process::ExitCode;

use backstop_audit::{AuditLog, AuditSettings, Mark, Place, Report, Rotation};

use crate::args::{AuditArgs, AuditCommand, AuditHeadArgs, AuditVerifyArgs};

/// Size of a file, if nobody says.
const FILE_BYTES: u64 = 256 << 20;
/// Smallest size of a file: a few of the longest lines.
const FILE_BYTES_MIN: u64 = 1 << 20;

/// Opens the log that the settings name, if they name one.
pub(crate) fn open(args: &AuditArgs) -> Result<Option<AuditLog>, String> {
    let Some(path) = &args.audit_log else {
        return match format!("{args:?}") == format!("{:?}", AuditArgs::default()) {
            true => Ok(None),
            false => {
                Err("there are settings of an audit log, and --audit-log names none".to_owned())
            }
        };
    };
    let bytes_max = args.audit_log_max_size.unwrap_or(FILE_BYTES);
    if bytes_max < FILE_BYTES_MIN {
        return Err("--audit-log-max-size must be 1MiB or more".to_owned());
    }
    let settings = AuditSettings {
        path: path.clone(),
        rotation: Rotation {
            bytes_max,
            age_max: args.audit_log_max_age,
            files_max: args.audit_log_max_files,
        },
        required: args.audit_log_required,
        prompts: args.audit_log_prompts,
        version: env!("CARGO_PKG_VERSION"),
    };
    let opened = AuditLog::open(&settings);
    opened
        .map(Some)
        .map_err(|error| format!("--audit-log {error}"))
}

pub(crate) fn run(command: &AuditCommand) -> Result<ExitCode, String> {
    match command {
        AuditCommand::Verify(args) => verify(args),
        AuditCommand::Head(args) => head(args),
    }
}

#[expect(clippy::print_stdout, reason = "it is what the command is for")]
fn head(args: &AuditHeadArgs) -> Result<ExitCode, String> {
    let head = backstop_audit::head(&args.log);
    let (sequence, hash) = head.map_err(|error| error.to_string())?;
    println!("{sequence} {hash}");
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "it is what the command is for")]
fn verify(args: &AuditVerifyArgs) -> Result<ExitCode, String> {
    let report = backstop_audit::verify(&args.logs, &args.expect);
    let report = report.map_err(|error| error.to_string())?;
    let text = match args.json {
        true => json(&report)?,
        false => told(&report),
    };
    println!("{text}");
    Ok(match report.holds() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn json(report: &Report) -> Result<String, String> {
    let value = serde_json::to_value(report).and_then(|mut value| {
        value["holds"] = report.holds().into();
        serde_json::to_string_pretty(&value)
    });
    value.map_err(|error| error.to_string())
}

/// A report in words.
fn told(report: &Report) -> String {
    let place = |what: &str, place: &Place| {
        format!(
            "{what}: {} line {}: {}",
            place.file.display(),
            place.line,
            place.what
        )
    };
    let mark = |mark: &Mark| format!("entry {} of {}, {}", mark.sequence, mark.time, mark.hash);
    let mut lines = vec![format!(
        "files: {}, entries: {}, requests: {}",
        report.files.len(),
        report.entries,
        report.requests
    )];
    if let (Some(first), Some(last)) = (&report.first, &report.last) {
        lines.push(format!("first: {}", mark(first)));
        lines.push(format!("last:  {}", mark(last)));
        if first.sequence > 1 {
            lines.push("files before the first entry are not here".to_owned());
        }
    }
    if report.lost > 0 {
        lines.push(format!(
            "{} entries were lost for want of room, as the log says",
            report.lost
        ));
    }
    if report.unsynced > 0 {
        lines.push(format!(
            "{} entries were not confirmed by the disk, as the log says",
            report.unsynced
        ));
    }
    lines.extend(report.torn.iter().map(|torn| place("torn", torn)));
    lines.extend(report.faults.iter().map(|fault| place("BROKEN", fault)));
    if report.more_faults > 0 {
        lines.push(format!("BROKEN: {} more", report.more_faults));
    }
    let missing = report.missing.iter();
    lines.extend(missing.map(|hash| format!("MISSING: no entry has the hash {hash}")));
    lines.push(match report.holds() {
        true => "the chain holds".to_owned(),
        false => "the chain does not hold".to_owned(),
    });
    lines.join("\n")
}
