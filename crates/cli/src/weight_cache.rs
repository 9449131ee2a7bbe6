//! `--weight-cache`: a directory in which weights are kept as the CPU computes with them.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use backstop_engine::{EngineHandle, LifecycleState};
use backstop_executor::PlannedCache;
use backstop_loader::WeightCache;
use rustix::process::setpriority_process;

use crate::args::{LoadFormat, ServeArgs};
use crate::load::OpenModel;
use crate::start::Prepared;

/// How soon after requests the file is written on.
const PAUSE: Duration = Duration::from_millis(200);
/// The thread that writes gets time that nobody else wants.
const NICENESS: i32 = 19;

/// Makes the directory that the settings name, if they name one, before the process is confined to it.
pub(crate) fn make_directory(args: &ServeArgs) -> Result<(), String> {
    let Some(directory) = &args.weight_cache else {
        return Ok(());
    };
    if args.model.load_format == Some(LoadFormat::Synthetic) {
        return Err(refused("made-up weights are not worth keeping"));
    }
    let integrity = &args.model.integrity;
    if integrity.verify || integrity.require_signature.is_some() {
        return Err(refused(
            "--verify and --require-signature say what the model's files are, and what is kept of \
             them would not be looked at",
        ));
    }
    let failed = |error| format!("--weight-cache {}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(failed)
}

/// Lets the plan use that directory for weights with this digest.
pub(crate) fn plan(
    args: &ServeArgs,
    open: &OpenModel,
    prepared: &mut Prepared,
    digest: &str,
) -> Result<Option<Arc<PlannedCache>>, String> {
    let Some(directory) = &args.weight_cache else {
        return Ok(None);
    };
    let file = WeightCache::new(directory, &open.name, &open.source.checkpoint, digest);
    let file = file.map_err(|error| format!("{}: {error}", open.directory.display()))?;
    let cache = Arc::new(PlannedCache::new(file));
    match prepared.plan.use_cache(&cache) {
        true => Ok(Some(cache)),
        false => Err(refused(&format!(
            "weights go from the model's files straight to {}, and nothing would be gained",
            prepared.place
        ))),
    }
}

fn refused(reason: &str) -> String {
    format!("--weight-cache: {reason}; leave it out")
}

/// Writes what the cache lacks, on a thread of its own, once the server is ready and whenever no request runs.
pub(crate) fn write_when_idle(cache: Arc<PlannedCache>, engine: EngineHandle) {
    let work = move || {
        // Of this thread alone. Without it, it is only less polite.
        let _ignored = setpriority_process(None, NICENESS);
        cache.write_what_it_lacks(&mut || wait_until_idle(&engine));
    };
    let thread = thread::Builder::new().name("weight-cache".to_owned());
    if let Err(error) = thread.spawn(work) {
        tracing::warn!("weights are not kept: {error}");
    }
}

/// Whether the server is there for requests and has none. Says no once it no longer is there.
fn wait_until_idle(engine: &EngineHandle) -> bool {
    loop {
        let busy = match engine.lifecycle().state() {
            LifecycleState::Loading { .. } | LifecycleState::Warming => true,
            LifecycleState::Ready => {
                let stats = engine.stats().scheduler;
                stats.running > 0 || stats.waiting > 0
            }
            _ => return false,
        };
        if !busy {
            return true;
        }
        thread::sleep(PAUSE);
    }
}
