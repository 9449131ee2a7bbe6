//! Generates load for servers of OpenAI's API, and says what came of it in the terms of vLLM's benchmark.
//!
//! A [`Workload`] says what is asked, a [`Pace`] when, [`run`] asks, [`summarise`] makes numbers of the [`Record`]s, and
//! [`CapacitySearch`] says at which load to try next. Records that were made otherwise, without HTTP, can be summarised too.

mod arrivals;
mod calibration;
mod capacity;
mod error;
mod generator;
mod objectives;
mod power;
mod prompts;
mod random;
mod record;
mod statistics;
mod summary;
mod trace;
mod validity;
mod wire;
mod workload;

pub use arrivals::{Burstiness, arrivals};
pub use calibration::{Calibration, calibrate};
pub use capacity::{Capacity, CapacitySearch, Probe, Scale};
pub use error::LoadError;
pub use generator::{Outcome, Pace, Progress, Target, run};
pub use objectives::Objectives;
pub use power::{Energy, EnergySource, PowerMeter};
pub use prompts::prompts_of_file;
pub use random::{generator, text_token, text_tokens};
pub use record::{Events, Latencies, Record, TokenCount};
pub use statistics::{Percentile, Spread, percentile};
pub use summary::{Settings, Summary, summarise};
pub use trace::{Arrival, TraceFormat, trace_of_file};
pub use validity::{Flaws, flaws};
pub use wire::{Backend, Prompts, Wire};
pub use workload::{
    Content, Lengths, Prefixes, Segment, Session, Turn, Workload, conversations, prefixed, random,
    recorded,
};
