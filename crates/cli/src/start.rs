//! From an open model to a running engine.

use std::sync::Arc;
use std::time::Instant;

use backstop_arch::{KvGroup, ModelSpec};
use backstop_card::Device;
use backstop_engine::{EngineConfig, EngineHandle, EngineThread, Lifecycle, LifecycleState};
use backstop_executor::{
    CpuExecutorConfig, CudaPlan, CudaRequest, DeviceExecutor, KvMemoryPlan, KvMemoryRequest,
    full_demand_bytes, plan_kv_memory,
};
use backstop_kernels::{CpuBackend, CpuKvCache, CpuWeights, KvGroupLayout};
use backstop_loader::{DeviceWeightPlan, LoadFailure, load_cpu_weights, load_device_weights};
use backstop_types::Executor;

use crate::args::{DeviceChoice, ModelArgs};
use crate::device::Compute;
use crate::draft::OpenHead;
use crate::limits::Limits;
use crate::load::OpenModel;
use crate::machine;
use crate::progress::weights_bar;
use crate::quantities::format_bytes;

/// KV memory on the CPU by default: what the limits ask for, but no larger share of the free
/// memory.
const DEFAULT_KV_SHARE_OF_FREE_MEMORY: u64 = 4;
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
    pub(crate) weights_bytes: u64,
    /// Why it is on the CPU, if there is a GPU.
    pub(crate) not_on_gpu: Option<String>,
    place: Place,
}

/// Why a model is not to run on a GPU.
enum NotOnGpu {
    /// There are no kernels for it, whatever the settings.
    Unable(String),
    /// The settings are wrong, or it does not fit.
    Refused(String),
}

impl From<String> for NotOnGpu {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

enum Place {
    Cpu(KvMemoryPlan, Option<Box<OpenHead>>),
    Cuda {
        device: Arc<dyn Device>,
        plan: Box<CudaPlan>,
    },
}

impl Prepared {
    /// On the device that the settings choose. The error says what does not fit, and which setting
    /// would make it fit.
    pub(crate) fn new(args: &ModelArgs, open: &OpenModel) -> Result<Self, String> {
        let prepared = Self::on(args, open, Compute::choose(args)?)?;
        if let Some(reason) = &prepared.not_on_gpu {
            tracing::warn!("computing on the CPU instead: {reason}");
        }
        Ok(prepared)
    }

    /// On this device. Where the device was left to this program, the CPU computes what a GPU has no kernels for.
    pub(crate) fn on(args: &ModelArgs, open: &OpenModel, compute: Compute) -> Result<Self, String> {
        let Compute::Cuda(device) = compute else {
            return Self::on_cpu(args, open);
        };
        match Self::on_cuda(args, open, device) {
            Ok(prepared) => Ok(prepared),
            Err(NotOnGpu::Unable(reason)) if args.device() == DeviceChoice::Auto => Ok(Self {
                not_on_gpu: Some(reason),
                ..Self::on_cpu(args, open)?
            }),
            Err(NotOnGpu::Unable(reason)) => {
                let directory = open.directory.display();
                Err(format!("{directory}: {reason}: choose --device cpu"))
            }
            Err(NotOnGpu::Refused(reason)) => Err(reason),
        }
    }

    fn on_cpu(args: &ModelArgs, open: &OpenModel) -> Result<Self, String> {
        let limits = Limits::new(args, open, false)?;
        let head = match &args.speculative_config {
            Some(config) => config.head()?,
            None => None,
        };
        let head = head.map(|choice| OpenHead::open(choice, open.spec()).map(Box::new));
        let head = head.transpose()?;
        let kv = match &head {
            Some(head) => cpu_kv_memory(args, &limits, &head.with_room(&open.spec().kv_groups))?,
            None => cpu_kv_memory(args, &limits, &open.spec().kv_groups)?,
        };
        let model_bytes = match &open.synthetic {
            None => open.checkpoint.bytes_total(),
            Some(synthetic) => synthetic.cpu_bytes(open.spec()),
        };
        let weights_bytes = model_bytes + head.as_ref().map_or(0, |head| head.weights_bytes());
        if let Some(free) = machine::available_memory_bytes()
            && weights_bytes + kv.bytes > free
        {
            return Err(format!(
                "{} needs {} for its weights and {} for the KV cache, which is {} more than the \
                 machine has free: lower --kv-cache-memory or serve a smaller model",
                open.name,
                format_bytes(weights_bytes),
                format_bytes(kv.bytes),
                format_bytes(weights_bytes + kv.bytes - free),
            ));
        }
        Ok(Self {
            limits,
            weights_bytes,
            not_on_gpu: None,
            place: Place::Cpu(kv, head),
        })
    }

    fn on_cuda(
        args: &ModelArgs,
        open: &OpenModel,
        device: Arc<dyn Device>,
    ) -> Result<Self, NotOnGpu> {
        let able = backstop_card::ABILITIES.check(&open.model.needs());
        able.map_err(|refusal| NotOnGpu::Unable(refusal.to_string()))?;
        let limits = Limits::new(args, open, true)?;
        let named = |error: String| format!("{}: {error}", open.directory.display());
        let weights = match &open.synthetic {
            None => DeviceWeightPlan::of_checkpoint(&open.checkpoint, open.spec()).map_err(
                |failure| match failure {
                    LoadFailure::NotForDevice { name, format } => NotOnGpu::Unable(format!(
                        "{name} is {format}, and the GPU computes with weights in BF16 or, for experts, FP8"
                    )),
                    failure => NotOnGpu::Refused(named(failure.to_string())),
                },
            )?,
            Some(synthetic) => DeviceWeightPlan::of_synthetic(synthetic, open.spec()),
        };
        let weights_bytes = weights.bytes();
        let free = device.free_bytes().map_err(|error| error.to_string())?;
        let request = CudaRequest {
            max_num_seqs: limits.max_num_seqs,
            max_num_batched_tokens: limits.max_num_batched_tokens,
            max_model_len: limits.max_model_len,
            block_size: limits.block_size,
            kv_element: limits.kv_element,
            kv_cache_bytes: args.kv_cache_memory,
            memory_utilization: limits.gpu_memory_utilization,
            graphs: !args.enforce_eager,
        };
        let plan = CudaPlan::new(device.facts(), free, &open.model, weights, request)
            .map_err(|error| named(error.to_string()))?;
        Ok(Self {
            limits,
            weights_bytes,
            not_on_gpu: None,
            place: Place::Cuda {
                plan: Box::new(plan),
                device,
            },
        })
    }

    /// What computes, as far as answers depend on it: processors and GPUs round differently.
    pub(crate) fn arithmetic(&self) -> String {
        match &self.place {
            Place::Cpu(..) => format!("{:?}", backstop_kernels::features()),
            Place::Cuda { device, .. } => device.facts().name.clone(),
        }
    }

    pub(crate) fn is_on_gpu(&self) -> bool {
        matches!(self.place, Place::Cuda { .. })
    }

    pub(crate) fn kv_bytes(&self) -> u64 {
        match &self.place {
            Place::Cpu(kv, _) => kv.bytes,
            Place::Cuda { plan, .. } => plan.kv.bytes,
        }
    }

    /// Loads or makes the weights and starts the executor.
    fn start(self, open: OpenModel, lifecycle: &Lifecycle) -> Result<Box<dyn Executor>, String> {
        let started = Instant::now();
        let kv_bytes = self.kv_bytes();
        let work_bytes = match &self.place {
            Place::Cpu(..) => None,
            Place::Cuda { plan, .. } => Some(plan.work_bytes()),
        };
        let executor: Box<dyn Executor> = match self.place {
            Place::Cpu(kv, head) => {
                Box::new(start_on_cpu(open, &self.limits, (kv, head), lifecycle)?)
            }
            Place::Cuda { device, plan } => {
                let fill = |spec: &ModelSpec, weights: &_| match &open.synthetic {
                    Some(synthetic) => Ok(synthetic.make_on_device(spec, weights)?),
                    None => with_progress(open.checkpoint.bytes_total(), lifecycle, |progress| {
                        load_device_weights(&open.checkpoint, spec, weights, progress)
                    }),
                };
                let executor = plan.start(&device, Box::new(open.model), fill);
                Box::new(executor.map_err(|error| format!("{}: {error}", open.name))?)
            }
        };
        tracing::info!(
            "{} of weights after {:.1} s; KV cache {} in blocks of {} tokens{}",
            format_bytes(self.weights_bytes),
            started.elapsed().as_secs_f32(),
            format_bytes(kv_bytes),
            self.limits.block_size,
            work_bytes.map_or_else(String::new, |bytes| format!(
                "; {} for activations and tables",
                format_bytes(bytes)
            )),
        );
        Ok(executor)
    }
}

/// Runs `work` with a progress bar and the life-cycle's progress.
fn with_progress<T>(
    bytes_total: u64,
    lifecycle: &Lifecycle,
    work: impl FnOnce(&(dyn Fn(u64) + Sync)) -> T,
) -> T {
    let bar = weights_bar("loading weights", bytes_total);
    let result = work(&|bytes_done: u64| {
        bar.set_position(bytes_done);
        lifecycle.advance(LifecycleState::Loading {
            bytes_done,
            bytes_total,
        });
    });
    bar.finish_and_clear();
    result
}

/// The KV pools that the settings and the free memory allow.
fn cpu_kv_memory(
    args: &ModelArgs,
    limits: &Limits,
    groups: &[KvGroup],
) -> Result<KvMemoryPlan, String> {
    let mut request = KvMemoryRequest {
        budget_bytes: u64::MAX,
        block_size: limits.block_size,
        element_bytes: limits.kv_element.bytes() as u32,
        max_num_seqs: limits.max_num_seqs,
        max_model_len: limits.max_model_len,
        max_num_batched_tokens: limits.max_num_batched_tokens,
    };
    let available = machine::available_memory_bytes();
    request.budget_bytes = match args.kv_cache_memory {
        Some(asked) if available.is_some_and(|available| asked > available) => {
            return Err(format!(
                "--kv-cache-memory {} is more than the {} that are free on this machine",
                format_bytes(asked),
                format_bytes(available.unwrap_or(0)),
            ));
        }
        Some(asked) => asked,
        None => {
            let share = available.map_or(4 << 30, |free| free / DEFAULT_KV_SHARE_OF_FREE_MEMORY);
            full_demand_bytes(groups, &request).min(share)
        }
    };
    plan_kv_memory(groups, &request).map_err(|error| error.to_string())
}

fn start_on_cpu(
    open: OpenModel,
    limits: &Limits,
    (kv, head): (KvMemoryPlan, Option<Box<OpenHead>>),
    lifecycle: &Lifecycle,
) -> Result<DeviceExecutor, String> {
    let weights = cpu_weights(&open, lifecycle)?;
    let drafter = head.map(|head| head.start((open.spec(), &weights), &kv.spec, limits.kv_element));
    let drafter = drafter.transpose()?;
    let groups = open.spec().kv_groups.iter().zip(&kv.spec.groups);
    let groups: Vec<KvGroupLayout> = groups
        .map(|(group, pool)| group.layout(pool.num_blocks))
        .collect();
    let cache = CpuKvCache::new(&groups, limits.block_size, limits.kv_element);
    CpuExecutorConfig {
        model: Box::new(open.model),
        backend: CpuBackend::new(Arc::new(weights), cache),
        kv: kv.spec,
        max_num_seqs: limits.max_num_seqs,
        num_threads: limits.num_threads,
        drafter,
    }
    .start()
    .map_err(|error| format!("cannot start the executor: {error}"))
}

fn cpu_weights(open: &OpenModel, lifecycle: &Lifecycle) -> Result<CpuWeights, String> {
    let spec = open.spec();
    match &open.synthetic {
        Some(synthetic) => {
            let bytes = synthetic.cpu_bytes(spec);
            let make = |progress: &(dyn Fn(u64) + Sync)| synthetic.make_on_cpu(spec, progress);
            Ok(with_progress(bytes, lifecycle, make))
        }
        None => with_progress(open.checkpoint.bytes_total(), lifecycle, |progress| {
            load_cpu_weights(&open.checkpoint, spec, progress)
        })
        .map(arranged)
        .map_err(|error| format!("{}: {error}", open.directory.display())),
    }
}

/// Brings the weights into the order in which this machine computes fastest.
fn arranged(weights: CpuWeights) -> CpuWeights {
    let bar = weights_bar("arranging weights", weights.bytes() as u64);
    let weights = weights.arranged(&|bytes_done| bar.set_position(bytes_done));
    bar.finish_and_clear();
    weights
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
        max_num_seqs: limits.max_num_seqs,
        max_num_batched_tokens: limits.max_num_batched_tokens,
        max_waiting,
        max_model_len: limits.max_model_len,
        enable_prefix_caching: !args.no_enable_prefix_caching,
        max_step_failures: MAX_STEP_FAILURES,
        speculation: limits.speculation,
    };
    let (engine, thread) = EngineThread::spawn(&config, executor, lifecycle.clone())
        .map_err(|error| error.to_string())?;
    Ok(RunningModel {
        engine,
        thread,
        max_model_len: limits.max_model_len,
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

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
        Prepared::on(&args, &load::open(&args)?, Compute::Cuda(Arc::new(card)))
    }

    #[test]
    fn the_cpu_serves_what_there_are_no_kernels_for_and_the_reason_is_known() {
        for (name, reason) in [
            ("decoders/glm4_moe_lite", "no kernels for latent attention"),
            ("decoders/gpt_oss_bf16", "no kernels for attention sinks"),
            ("quantized/int4_channel", "is INT4"),
        ] {
            let directory = golden(name);
            let on = |device| prepared(&directory, device, 80 << 30);
            let prepared = on(DeviceChoice::Auto).unwrap_or_else(|error| panic!("{error}"));
            assert!(!prepared.is_on_gpu(), "{name}");
            let found = prepared.not_on_gpu.unwrap_or_default();
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
        assert!(prepared(80 << 30).is_ok_and(|prepared| prepared.is_on_gpu()));
        let error = prepared(1 << 20).err().unwrap_or_default();
        assert!(error.contains("the GPU has too little memory"), "{error}");
    }
}
