//! From an open model to a running engine.

use std::time::Instant;

use backstop_engine::{
    EngineConfig, EngineHandle, EngineThread, Lifecycle, LifecycleState, StartPhase, Timeline,
};
use backstop_executor::{ComputeDevice, Plan, PlanError, StartStage, format_bytes};
use backstop_types::Executor;

use crate::args::{DeviceChoice, ModelArgs};
use crate::limits::Limits;
use crate::load::OpenModel;
use crate::progress::{ProgressBars, Speed};
use crate::{device, draft};

/// Failed steps that one sequence survives before it is given up.
const MAX_STEP_FAILURES: u32 = 2;

/// A model that answers.
pub(crate) struct RunningModel {
    pub(crate) engine: EngineHandle,
    pub(crate) thread: EngineThread,
    pub(crate) max_model_len: u32,
}

/// Where and in what sizes a model is to run, before anything is loaded.
pub(crate) struct Prepared {
    pub(crate) limits: Limits,
    pub(crate) plan: Plan,
    pub(crate) on_gpu: bool,
    /// Where, in words.
    pub(crate) place: &'static str,
    /// What is computed beside an answer never changes it.
    pub(crate) batch_invariant: bool,
    /// Why it is not on the device that would be better.
    pub(crate) refusal: Option<String>,
}

impl Prepared {
    /// On the device that the settings choose. The error says what does not fit, and which setting
    /// would make it fit.
    pub(crate) fn new(
        args: &ModelArgs,
        open: &OpenModel,
        timeline: &Timeline,
    ) -> Result<Self, String> {
        timeline.begin(StartPhase::Device);
        let device = device::choose(args)?;
        timeline.begin(StartPhase::Planning);
        let prepared = Self::on(args, open, &device)?;
        if let Some(reason) = &prepared.refusal {
            tracing::warn!("computing on {} instead: {reason}", prepared.place);
        }
        Ok(prepared)
    }

    /// On this device. Where the device was left to this program, the CPU computes what a GPU has no kernels for.
    pub(crate) fn on(
        args: &ModelArgs,
        open: &OpenModel,
        device: &ComputeDevice,
    ) -> Result<Self, String> {
        let on_gpu = device.is_gpu();
        let limits = Limits::new(args, open, on_gpu)?;
        let head = draft::open(args, open.spec())?;
        match Plan::new(device, &open.source, &limits.sizes, head) {
            Ok(plan) => Ok(Self {
                limits,
                plan,
                on_gpu,
                place: device.name(),
                batch_invariant: device.is_batch_invariant(),
                refusal: None,
            }),
            Err(PlanError::Model(refusal)) if args.device() == DeviceChoice::Auto => {
                let other = device::instead_of(device).ok_or_else(|| refusal.to_string())?;
                Ok(Self {
                    refusal: Some(refusal.to_string()),
                    ..Self::on(args, open, &other)?
                })
            }
            Err(error) => Err(format!("{}: {error}", open.directory.display())),
        }
    }

    /// Loads or makes the weights and starts the executor.
    fn start(self, open: OpenModel, lifecycle: &Lifecycle) -> Result<Box<dyn Executor>, String> {
        for warning in &open.warnings {
            tracing::warn!("{}: {warning}", open.name);
        }
        let started = Instant::now();
        let bytes = self.plan.bytes();
        let bars = ProgressBars::default();
        let executor = self
            .plan
            .start(open.source, &|stage, bytes_done, bytes_total| {
                lifecycle.timeline().begin(phase_of(stage));
                bars.show(stage, bytes_done, bytes_total);
                if stage == StartStage::Loading {
                    lifecycle.advance(LifecycleState::Loading {
                        bytes_done,
                        bytes_total,
                    });
                }
            });
        let executor =
            executor.map_err(|error| format!("{}: {error}", open.directory.display()))?;
        lifecycle.timeline().begin(StartPhase::Engine);
        let took = started.elapsed();
        tracing::info!(
            "{} of weights after {:.1} s ({}); KV cache {} in blocks of {} tokens{}",
            format_bytes(bytes.weights),
            took.as_secs_f32(),
            Speed(bytes.weights, took),
            format_bytes(bytes.kv),
            self.limits.sizes.block_size,
            bytes.work.map_or_else(String::new, |bytes| format!(
                "; {} for activations and tables",
                format_bytes(bytes)
            )),
        );
        Ok(executor)
    }
}

/// The part of a start that a stage of the executor's is.
fn phase_of(stage: StartStage) -> StartPhase {
    match stage {
        StartStage::Memory => StartPhase::Memory,
        StartStage::Loading => StartPhase::Weights,
        StartStage::Arranging => StartPhase::Arranging,
    }
}

/// Loads the weights and starts the engine. Must be called within a tokio runtime.
pub(crate) fn start(
    args: &ModelArgs,
    open: OpenModel,
    prepared: Prepared,
    max_waiting: u32,
    lifecycle: &Lifecycle,
) -> Result<RunningModel, String> {
    let limits = prepared.limits;
    let executor = prepared.start(open, lifecycle)?;
    let config = EngineConfig {
        max_num_seqs: limits.sizes.max_num_seqs,
        max_num_batched_tokens: limits.sizes.max_num_batched_tokens,
        max_waiting,
        max_model_len: limits.sizes.max_model_len,
        enable_prefix_caching: !args.no_enable_prefix_caching,
        max_step_failures: MAX_STEP_FAILURES,
        speculation: limits.speculation,
    };
    let (engine, thread) = EngineThread::spawn(&config, executor, lifecycle.clone())
        .map_err(|error| error.to_string())?;
    Ok(RunningModel {
        engine,
        thread,
        max_model_len: limits.sizes.max_model_len,
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use backstop_card::DeviceFacts;
    use backstop_card::planning::PlanningDevice;

    use super::*;
    use crate::load;

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(path)
    }

    /// A checkpoint of the goldens with the texts of the demo model.
    fn golden(name: &str) -> PathBuf {
        let process = std::process::id();
        let name_of_copy = name.replace('/', "-");
        let scratch = std::env::temp_dir().join(format!("backstop-{name_of_copy}-{process}"));
        std::fs::create_dir_all(&scratch).expect("a directory");
        let copy = |from: PathBuf| {
            let to = scratch.join(from.file_name().expect("a file"));
            std::fs::copy(from, to).expect("a copy");
        };
        for text in ["tokenizer.json", "tokenizer_config.json"] {
            copy(repository("models/demo").join(text));
        }
        for file in std::fs::read_dir(repository(&format!("tests/goldens/{name}"))).expect("files")
        {
            copy(file.expect("a file").path());
        }
        scratch
    }

    /// Where a model is served on a machine with a card of so much memory, or why it is not.
    fn prepared(model: &Path, device: DeviceChoice, memory_bytes: u64) -> Result<Prepared, String> {
        let args = ModelArgs {
            model: Some(model.display().to_string()),
            device: Some(device),
            ..ModelArgs::default()
        };
        let card = PlanningDevice::new(DeviceFacts {
            name: "a card".into(),
            multiprocessors: 132,
            memory_bytes,
            driver: String::new(),
        });
        Prepared::on(
            &args,
            &load::open(&args)?,
            &ComputeDevice::Cuda(Arc::new(card)),
        )
    }

    #[test]
    fn the_cpu_serves_what_there_are_no_kernels_for_and_the_reason_is_known() {
        for (name, reason) in [
            ("decoders/glm4_moe_lite", "no kernels for latent attention"),
            ("decoders/gpt_oss_bf16", "no kernels for attention sinks"),
            ("quantized/int4_channel", "in INT4"),
        ] {
            let directory = golden(name);
            let on = |device| prepared(&directory, device, 80 << 30);
            let prepared = on(DeviceChoice::Auto).unwrap_or_else(|error| panic!("{error}"));
            assert!(!prepared.on_gpu, "{name}");
            let found = prepared.refusal.unwrap_or_default();
            assert!(found.contains(reason), "{name}: {found}");
            assert!(!found.contains("--device"), "{name}: {found}");
            let asked_for = on(DeviceChoice::Cuda(0)).err().unwrap_or_default();
            assert!(
                asked_for.contains(reason) && asked_for.ends_with("choose --device cpu"),
                "{name}: {asked_for}"
            );
            std::fs::remove_dir_all(directory).expect("a directory");
        }
    }

    #[test]
    fn a_model_that_the_gpu_computes_is_served_there_or_does_not_fit() {
        let demo = repository("models/demo");
        let prepared = |bytes| prepared(&demo, DeviceChoice::Auto, bytes);
        assert!(prepared(80 << 30).is_ok_and(|prepared| prepared.on_gpu));
        let error = prepared(1 << 20).err().unwrap_or_default();
        assert!(error.contains("the GPU has too little memory"), "{error}");
    }
}
