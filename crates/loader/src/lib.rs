//! Brings a model's weights from a checkpoint to where they are computed with.
//!
//! [`Sources`] says where each weight lies and how it is stored: from there on nobody asks for a tensor's name, a scheme
//! or a layout. They are read a strip of rows at a time, all strips side by side and in the order of the files (`reads`),
//! into the memory that the processor or a card has for them (`cpu`, `device`).

mod blocks;
mod cache;
mod cpu;
mod device;
mod device_plan;
mod failure;
mod fit;
mod format;
mod mixture;
mod reads;
mod resolve;
mod source;
mod synthetic;

pub use cache::{CacheMiss, WeightCache};
pub use cpu::{
    HostWeight, load_cpu_draft_head, load_cpu_weights, load_cpu_weights_in_panels, load_one_by_one,
};
pub use device::{load_device_weights, load_in_pieces};
pub use device_plan::DeviceWeightPlan;
pub use failure::LoadFailure;
pub use fit::{Fitted, fit, fit_draft_head};
pub use mixture::{Mixture, NotMadeUp};
pub use resolve::Sources;
pub use synthetic::SyntheticWeights;
