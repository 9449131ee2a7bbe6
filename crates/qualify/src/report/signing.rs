//! Signs a report: an in-toto statement with in-toto's predicate for results of tests, in a DSSE envelope.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use backstop_signing::{Envelope, EnvelopeSignature, IN_TOTO};
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Signer as _;
use serde_json::{Value, json};

use super::args::SignArgs;
use super::identity::sha256;
use super::keys;
use crate::QualifyError;
use crate::output::{print, write_json};

pub(super) const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
pub(super) const PREDICATE_TYPE: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// The JSON of reports of this shape is signed, and none other.
const SHAPE: u64 = 1;
const REPORT_BYTES_MAX: u64 = 256 << 20;

pub(super) fn run(args: &SignArgs) -> Result<ExitCode, QualifyError> {
    let signer = keys::read(&args.key)?;
    let statement = statement(&args.json, args.html.as_deref())?;
    let mut envelope = Envelope {
        payload_type: IN_TOTO.to_owned(),
        payload: statement.to_string().into_bytes(),
        signatures: Vec::new(),
    };
    let signature: Signature = signer.key.sign(&envelope.signed_bytes());
    envelope.signatures.push(EnvelopeSignature {
        key_id: Some(signer.key_id.clone()),
        signature: signature.to_der().as_bytes().to_vec(),
    });
    let out = args.out.clone().unwrap_or_else(|| beside(&args.json));
    write_json(&out, &envelope.to_json())?;
    print(&format!(
        "{} signed by the key {}\n",
        out.display(),
        signer.key_id
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn beside(json: &Path) -> PathBuf {
    let mut path = json.as_os_str().to_owned();
    path.push(".dsse");
    path.into()
}

/// Subjects are the files of the report and whatever it has digests of; the predicate is what it comes to.
fn statement(json_path: &Path, html_path: Option<&Path>) -> Result<Value, QualifyError> {
    let report = read_report(json_path)?;
    let mut subjects = vec![subject(json_path)?];
    if let Some(path) = html_path {
        subjects.push(subject(path)?);
    }
    let files = report["identity"]["files"].as_object();
    for (name, digest) in files.into_iter().flatten() {
        subjects.push(json!({"name": name, "digest": {"sha256": digest}}));
    }
    for what in ["tokenizer", "chat_template"] {
        let digest = &report["identity"]["entry"]["provenance"][what];
        if digest.is_string() {
            subjects.push(json!({"name": what, "digest": {"sha256": digest}}));
        }
    }
    let evidence = report["evidence"].as_object().into_iter().flatten();
    let configuration =
        evidence.map(|(name, digest)| json!({"name": name, "digest": {"sha256": digest}}));
    Ok(json!({
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": result(&report)?,
            "configuration": configuration.collect::<Vec<_>>(),
            "passedTests": tests(&report, &["reproduced", "higher"], "passed"),
            "warnedTests": tests(&report, &["not_comparable", "not_run"], "not_tried"),
            "failedTests": tests(&report, &["lower"], "failed"),
            "qualification": {
                "program": report["program"],
                "model": report["identity"]["model"],
                "servedAs": report["identity"]["backstop_model"],
                "fingerprint": report["identity"]["fingerprint"],
                "findings": report["summary"]["findings"],
                "built": report["built"],
                "expires": report["expires"],
            },
        },
    }))
}

fn read_report(path: &Path) -> Result<Value, QualifyError> {
    let bytes = backstop_input::read_file(path, REPORT_BYTES_MAX)
        .map_err(|error| QualifyError::at(path, error))?;
    let report: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let is_report =
        report["shape"].as_u64() == Some(SHAPE) && report["summary"]["verdict"].is_string();
    match is_report {
        true => Ok(report),
        false => Err(QualifyError::at(
            path,
            "it is no JSON of a report (report build --json)",
        )),
    }
}

fn subject(path: &Path) -> Result<Value, QualifyError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(json!({"name": name, "digest": {"sha256": sha256(path)?}}))
}

fn result(report: &Value) -> Result<&'static str, QualifyError> {
    use super::summary::Verdict;
    let verdicts = [Verdict::AsClaimed, Verdict::OpenPoints, Verdict::FallsShort];
    let verdict = &report["summary"]["verdict"];
    let found = verdicts
        .into_iter()
        .find(|one| serde_json::to_value(one).is_ok_and(|one| one == *verdict));
    let found = found
        .ok_or_else(|| QualifyError::new(format!("the report has an unknown verdict: {verdict}")));
    Ok(found?.result())
}

/// Names of claims and of checks that came to this.
fn tests(report: &Value, claims: &[&str], checks: &str) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let named = |kind: &str, entry: &Value| {
        format!("{kind}: {}", entry["name"].as_str().unwrap_or_default())
    };
    let claimed = list(&report["claims"]);
    let claimed = claimed
        .iter()
        .filter(|claim| claims.iter().any(|verdict| claim["verdict"] == *verdict));
    let checked = list(&report["conformance"]["checks"]);
    let checked = checked.iter().filter(|check| check["outcome"] == checks);
    let claimed = claimed.map(|claim| named("claim", claim));
    claimed
        .chain(checked.map(|check| named("conformance", check)))
        .collect()
}
