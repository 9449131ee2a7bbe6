//! A gateway's own log, replayed through two servers: how far the second does what the first does, on real requests.
//!
//! Nobody but the two servers is asked. Of contents, nothing is kept unless that is asked for, and nothing is logged.

mod agreement;
mod args;
mod asking;
mod log;
mod page;
mod summary;
mod sums;
mod table;

pub use agreement::{Agreement, JsonAgreement, ToolAgreement};
pub use args::ReplayArgs;
pub use asking::{Ending, Exchange, Kept, Reply};
pub use log::{BadLines, Fault};
pub use summary::{Rate, Shift, Side, Summary};

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

use futures::StreamExt;

use self::asking::Asking;
use self::log::Log;
use self::sums::Sums;
use crate::QualifyError;
use crate::output::{print, write_file, write_json};

/// How often it is said how far it has come.
const PROGRESS_REQUESTS: u64 = 100;

/// Replays a log.
///
/// # Errors
///
/// If it cannot be read, has no chats, or the outcome cannot be written.
pub async fn run(args: &ReplayArgs) -> Result<ExitCode, QualifyError> {
    let file = File::open(&args.log).map_err(|error| QualifyError::at(&args.log, error))?;
    let asking = Asking::new(args)?;
    let pairs_path = args.into.join("pairs.jsonl");
    if pairs_path.exists() {
        let reason = "it has a replay already: take another --into";
        return Err(QualifyError::at(&args.into, reason));
    }
    let mut pairs = None;
    let mut log = Log::new(BufReader::new(file));
    let mut sums = Sums::default();
    let mut left = args.limit;
    let mut failed = None;
    let logged = std::iter::from_fn(|| {
        left = left.checked_sub(1)?;
        log.next().unwrap_or_else(|error| {
            failed = Some(error);
            None
        })
    });
    // Lines are read as they are asked, so that a long log takes no memory.
    let exchanges = futures::stream::iter(logged).map(|logged| asking.exchange(logged));
    let mut exchanges = Box::pin(exchanges.buffered(usize::from(args.servers.concurrency)));
    while let Some(exchange) = exchanges.next().await {
        let pairs = match &mut pairs {
            Some(pairs) => pairs,
            None => pairs.insert(create(&pairs_path)?),
        };
        let mut line =
            serde_json::to_vec(&exchange).map_err(|error| QualifyError::new(error.to_string()))?;
        line.push(b'\n');
        let written = pairs.write_all(&line);
        written.map_err(|error| QualifyError::at(&pairs_path, error))?;
        sums.add(exchange);
        if sums.count().is_multiple_of(PROGRESS_REQUESTS) {
            tracing::info!("{} requests were asked", sums.count());
        }
    }
    drop(exchanges);
    if let Some(error) = failed {
        return Err(error);
    }
    let summary = sums.summary(args, log.bad)?;
    write(args, &summary)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the directory, and a file within it.
fn create(path: &Path) -> Result<File, QualifyError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let created = std::fs::create_dir_all(folder).and_then(|()| File::create_new(path));
    created.map_err(|error| QualifyError::at(path, error))
}

fn write(args: &ReplayArgs, summary: &Summary) -> Result<(), QualifyError> {
    let page = page::of(summary);
    write_json(&args.into.join("replay.json"), summary)?;
    write_json(&args.into.join("measures/replay.json"), &summary.measures())?;
    write_file(&args.into.join("replay.html"), page.as_bytes())?;
    if let Some(path) = &args.html {
        write_file(path, page.as_bytes())?;
    }
    if let Some(path) = &args.json {
        write_json(path, summary)?;
    }
    if args.json.as_deref() != Some(Path::new("-")) {
        print(&table::of(summary))?;
    }
    Ok(())
}
