//! What comes behind a network, by the files that sentence-transformers writes: `modules.json`, and a directory with a
//! `config.json` for each of its modules. Without it, an embedding is the mean of the last hidden states.
//!
//! Prompts (`config_sentence_transformers.json`) are the caller's to write before a text; none is added here.

use std::path::{Path, PathBuf};

use backstop_weights::Checkpoint;
use candle_core::{Device, Result as TensorResult, Tensor};
use candle_nn::{Linear, Module as _};
use serde_json::{Map, Value};

use crate::EncoderError;
use crate::activation::Activation;
use crate::attention::joined;
use crate::batch::Batch;
use crate::pooling::{self, PoolingMode};
use crate::settings::{file_error, is_inside, read_json, read_object};
use crate::weights::Weights;

/// Modules that a model may have.
const MODULES_MAX: usize = 32;
/// Vectors are not made shorter than by this (`torch.nn.functional.normalize`).
const NORM_MIN: f64 = 1e-12;

/// A list of modules, as far as it can be read without their weights.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where the network and its tokenizer are.
    pub(crate) network: PathBuf,
    /// How its hidden states become one vector; none if nothing says so.
    pub(crate) pooling: Option<Vec<PoolingMode>>,
    behind: Vec<PlannedStep>,
}

#[derive(Debug)]
enum PlannedStep {
    Dense(PathBuf),
    Normalize,
}

/// What is done with a vector.
#[derive(Debug)]
enum Step {
    Dense {
        linear: Linear,
        activation: Activation,
        adds_input: bool,
    },
    Normalize,
}

/// From hidden states to vectors.
#[derive(Debug)]
pub(crate) struct Modules {
    pooling: Vec<PoolingMode>,
    steps: Vec<Step>,
    /// Numbers of a vector.
    pub(crate) dimensions: usize,
}

impl Plan {
    /// Reads `modules.json` and the configurations of pooling.
    pub(crate) fn read(directory: &Path) -> Result<Self, EncoderError> {
        let path = directory.join("modules.json");
        let mut plan = Self {
            network: directory.to_owned(),
            pooling: None,
            behind: Vec::new(),
        };
        let Some(listed) = read_json(&path)? else {
            return Ok(plan);
        };
        let modules = listed
            .as_array()
            .filter(|modules| modules.len() <= MODULES_MAX);
        let modules = modules.ok_or_else(|| file_error(&path, "not a list of modules"))?;
        for (place, module) in modules.iter().enumerate() {
            let field = |name: &str| module.get(name).and_then(Value::as_str);
            let kind = field("type").unwrap_or_default();
            let within = Path::new(field("path").unwrap_or_default());
            if !is_inside(within) {
                return Err(file_error(&path, "a module's path leaves the directory"));
            }
            plan.add(kind, place, directory.join(within))
                .map_err(|reason| file_error(&path, reason))??;
        }
        Ok(plan)
    }

    /// Adds a module of a class, such as `sentence_transformers.models.Pooling`, if it can stand at this place.
    fn add(
        &mut self,
        class: &str,
        place: usize,
        directory: PathBuf,
    ) -> Result<Result<(), EncoderError>, String> {
        let known = class.starts_with("sentence_transformers.");
        let name = class.rsplit('.').next().unwrap_or_default();
        let is_pooled = self.pooling.is_some();
        match name {
            "Transformer" if known && place == 0 => self.network = directory,
            "Pooling" if known && place > 0 && !is_pooled => {
                return Ok(read_pooling(&directory).map(|modes| self.pooling = Some(modes)));
            }
            "Dense" if known && is_pooled => self.behind.push(PlannedStep::Dense(directory)),
            "Normalize" if known && is_pooled => self.behind.push(PlannedStep::Normalize),
            // Does nothing but in training.
            "Dropout" if known => {}
            _ => {
                return Err(format!(
                    "module {place} is {class}; supported are a Transformer, then one Pooling, then Dense and Normalize"
                ));
            }
        }
        Ok(Ok(()))
    }

    /// Whether something is done with vectors, which needs pooling before it.
    pub(crate) fn is_embedding(&self) -> bool {
        self.pooling.is_some()
    }

    /// Reads the weights of the modules behind a network of this width.
    pub(crate) fn load(&self, width: usize, device: &Device) -> Result<Modules, EncoderError> {
        let pooling = self.pooling.clone().unwrap_or(vec![PoolingMode::Mean]);
        let mut dimensions = width * pooling.len();
        let mut steps = Vec::new();
        for step in &self.behind {
            steps.push(match step {
                PlannedStep::Normalize => Step::Normalize,
                PlannedStep::Dense(directory) => dense(directory, &mut dimensions, device)?,
            });
        }
        Ok(Modules {
            pooling,
            steps,
            dimensions,
        })
    }
}

/// `1_Pooling/config.json`, in the present spelling or that of before version 6.
fn read_pooling(directory: &Path) -> Result<Vec<PoolingMode>, EncoderError> {
    let path = directory.join("config.json");
    let config = read_object(&path)?;
    let unknown = |what: &str| file_error(&path, format!("pooling {what} is not supported"));
    if let Some(mode) = config.get("pooling_mode") {
        let names: Vec<&Value> = match mode {
            Value::Array(names) => names.iter().collect(),
            name => vec![name],
        };
        let named = |name: &Value| {
            let modes = PoolingMode::NAMES.iter();
            let found = modes.clone().find(|(_, known, _)| name == known);
            found
                .map(|(mode, _, _)| *mode)
                .ok_or_else(|| unknown(&name.to_string()))
        };
        return names.into_iter().map(named).collect();
    }
    let chosen = |(name, value): (&String, &Value)| {
        (name.starts_with("pooling_mode_") && value == &Value::Bool(true)).then(|| name.clone())
    };
    for name in config.iter().filter_map(chosen) {
        if !PoolingMode::NAMES
            .iter()
            .any(|(_, _, field)| name == *field)
        {
            return Err(unknown(&name));
        }
    }
    let has = |field: &str| config.get(field) == Some(&Value::Bool(true));
    let modes = PoolingMode::NAMES.iter().filter(|(_, _, field)| has(field));
    let modes: Vec<PoolingMode> = modes.map(|(mode, _, _)| *mode).collect();
    Ok(match modes.is_empty() {
        true => vec![PoolingMode::Mean],
        false => modes,
    })
}

/// A projection of vectors; `dimensions` is what it reads, and becomes what it makes.
fn dense(directory: &Path, dimensions: &mut usize, device: &Device) -> Result<Step, EncoderError> {
    let checkpoint = Checkpoint::open(directory, &[])?;
    let path = directory.join("config.json");
    let config = checkpoint.config();
    let size = |name: &str| {
        let size = crate::settings::length(config.get(name));
        size.ok_or_else(|| file_error(&path, format!("{name} is not a number above 0")))
    };
    let (inputs, outputs) = (size("in_features")?, size("out_features")?);
    if inputs != *dimensions {
        let reason = format!("it reads {inputs} numbers, and there are {dimensions}");
        return Err(file_error(&path, reason));
    }
    *dimensions = outputs;
    for name in ["module_input_name", "module_output_name"] {
        let value = config.get(name).unwrap_or(&Value::Null);
        if !value.is_null() && value != "sentence_embedding" {
            return Err(file_error(
                &path,
                format!("{name} {value} is not supported"),
            ));
        }
    }
    let flag = |name: &str| config.get(name).and_then(Value::as_bool);
    let adds_input = flag("use_residual").unwrap_or(false);
    if adds_input && inputs != outputs {
        return Err(file_error(
            &path,
            "use_residual is only supported between equal sizes",
        ));
    }
    let activation = class_named(config, "activation_function")
        .unwrap_or(Ok(Activation::Tanh))
        .map_err(|reason| file_error(&path, reason))?;
    let weights = Weights::new(&checkpoint, device, &[""], "linear.weight");
    let linear = weights.linear("linear", inputs, outputs, flag("bias").unwrap_or(true))?;
    weights.finish("linear.")?;
    Ok(Step::Dense {
        linear,
        activation,
        adds_input,
    })
}

/// The activation that a field names by its class, if it is there.
pub(crate) fn class_named(
    config: &Map<String, Value>,
    name: &str,
) -> Option<Result<Activation, String>> {
    let class = config.get(name).filter(|value| !value.is_null())?;
    let known = class.as_str().and_then(Activation::of_class);
    Some(known.ok_or_else(|| format!("{name} {class} is not supported")))
}

impl Modules {
    /// From hidden states `[tokens, width]` to `[texts, dimensions]`.
    pub(crate) fn apply(&self, hidden: &Tensor, batch: &Batch<'_>) -> TensorResult<Tensor> {
        let pooled = self.pooling.iter();
        let pooled = pooled.map(|mode| pooling::pool(*mode, hidden, batch));
        let pooled = joined(&pooled.collect::<TensorResult<Vec<_>>>()?, 1)?;
        self.steps.iter().try_fold(pooled, |x, step| step.apply(&x))
    }
}

impl Step {
    fn apply(&self, x: &Tensor) -> TensorResult<Tensor> {
        match self {
            Self::Dense {
                linear,
                activation,
                adds_input,
            } => {
                let made = activation.apply(&linear.forward(x)?)?;
                match adds_input {
                    true => made + x,
                    false => Ok(made),
                }
            }
            Self::Normalize => {
                let length = x.sqr()?.sum_keepdim(1)?.sqrt()?;
                x.broadcast_div(&length.maximum(NORM_MIN)?)
            }
        }
    }
}
