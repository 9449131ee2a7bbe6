//! `backstop grammar-worker`: tries grammars for a server, which starts it and talks to it over
//! standard input and output (`backstop_server::GrammarWorker`). It may end at any time: that is
//! what it is for.

use std::io::{BufRead, Lines, StdinLock, Write};
use std::process::ExitCode;

use backstop_text::ConstraintFactory;
use backstop_text::constraint::{AnswerShape, Recipe};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Memory that a grammar may take beyond what there is at the start: 128 MiB, and the stack.
const MEMORY_BYTES_MAX: u64 = (128 << 20) + ConstraintFactory::TRIAL_STACK_BYTES as u64;
/// By how much it stands back behind the server.
const NICENESS: i32 = 5;
/// Time that a grammar may compute.
const COMPUTE_SECONDS_MAX: u64 = 5;

pub(crate) fn run() -> Result<ExitCode, String> {
    // The server has the processors first. It starts this everywhere alike.
    let _ignored = setpriority_process(None, NICENESS);
    let mut lines = std::io::stdin().lock().lines();
    let factory = factory(&mut lines)?;
    // What it holds is the text of requests, which nobody wants in a file.
    limit(Resource::Core, 0)?;
    answer()?;
    for line in lines {
        let line = line.map_err(|error| error.to_string())?;
        limit_memory()?;
        limit_time()?;
        // Whether it can be compiled is for the server to say, which now can try it as well.
        if let Ok(shape) = serde_json::from_str::<AnswerShape>(&line) {
            let _ignored = factory.try_out(&shape);
            answer()?;
        } else {
            return Err("cannot read a shape".to_owned());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn factory(lines: &mut Lines<StdinLock<'_>>) -> Result<ConstraintFactory, String> {
    let recipe = lines.next().ok_or("nothing to read")?;
    let recipe = recipe.map_err(|error| error.to_string())?;
    let recipe: Recipe = serde_json::from_str(&recipe).map_err(|error| error.to_string())?;
    recipe.make().map_err(|error| error.to_string())
}

fn answer() -> Result<(), String> {
    let mut output = std::io::stdout().lock();
    let written = output.write_all(b"done\n").and_then(|()| output.flush());
    written.map_err(|error| error.to_string())
}

/// Memory as it is now and so much more. Address space would be the wrong measure: the allocator
/// reserves far more of it than it uses. macOS neither says how much it is in this way nor keeps such a limit.
fn limit_memory() -> Result<(), String> {
    if cfg!(target_os = "macos") {
        return Ok(());
    }
    let statistics = std::fs::read_to_string("/proc/self/statm");
    let statistics = statistics.map_err(|error| error.to_string())?;
    let data = statistics.split_whitespace().nth(5);
    let pages: Option<u64> = data.and_then(|pages| pages.parse().ok());
    let pages = pages.ok_or("cannot read how much memory there is")?;
    let bytes = pages * rustix::param::page_size() as u64 + MEMORY_BYTES_MAX;
    limit(Resource::Data, bytes)
}

/// Time as it is now and so much more.
fn limit_time() -> Result<(), String> {
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let used = u64::try_from(used).unwrap_or(0);
    // A second more, for the limit counts whole ones.
    limit(Resource::Cpu, used + COMPUTE_SECONDS_MAX + 1)
}

/// Sets the limit that holds, below the one to which it can be raised again.
fn limit(resource: Resource, value: u64) -> Result<(), String> {
    let maximum = getrlimit(resource).maximum;
    let current = Some(maximum.map_or(value, |maximum| value.min(maximum)));
    setrlimit(resource, Rlimit { current, maximum }).map_err(|error| error.to_string())
}
