//! The routed experts of a layer, and the tensors that hold them.

use backstop_weights::ExpectedTensor;

use super::{EXPERT, FLOAT, required};

/// The routed experts of one layer. Checkpoints store them unfused, as
/// `{prefix}.{expert}.{projection}.weight`, or packed, as `{prefix}.gate_up_proj`
/// `[experts, 2 * width, hidden]` (gate rows first) and `{prefix}.down_proj`
/// `[experts, hidden, width]`.
///
/// gpt-oss alone stores gate and up rows in turns, and with biases: `{prefix}.gate_up_proj_bias`
/// `[experts, 2 * width]` and `{prefix}.down_proj_bias` `[experts, hidden]`. Its matrices are
/// packed with inputs before outputs, `[experts, hidden, 2 * width]` and `[experts, width,
/// hidden]`, unless they are quantised. GGUF files have its experts unfused, as all others, and biases beside them.
#[derive(Clone, Debug)]
pub struct ExpertsRequest {
    /// Up to and without the expert's number.
    pub prefix: String,
    /// Names of the gate, up and down projections of unfused experts.
    pub projections: [&'static str; 3],
    /// Stored as gpt-oss does.
    pub alternating: bool,
    /// Number of experts.
    pub num_experts: usize,
    /// Width of the model.
    pub hidden: usize,
    /// Width of one expert.
    pub width: usize,
}

/// A tensor with something of one expert, or of all of them.
#[derive(Clone, Debug)]
pub struct ExpertsTensor {
    /// Its name and shape.
    pub tensor: ExpectedTensor,
    /// What it is a part of.
    pub part: ExpertsPart,
    /// Whether it holds what is added to the products with the matrices.
    pub is_bias: bool,
    /// Experts whose matrices, or biases, it holds.
    pub experts: usize,
    /// Outputs of each of these matrices.
    pub rows: usize,
    /// Their inputs; 1 for biases.
    pub columns: usize,
    /// Gate and up rows take turns.
    pub in_turns: bool,
    /// Each matrix lies with inputs before outputs, unless it is quantised.
    pub inputs_first: bool,
}

/// What a layer of experts consists of, each with the rows of one expert after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertsPart {
    /// Matrices `[2 * width, hidden]`: the gate rows and then the up rows.
    GateUp,
    /// Matrices `[hidden, width]`.
    Down,
}

impl ExpertsRequest {
    /// Name of one projection's tensor of an expert that is stored unfused.
    pub fn unfused(&self, expert: usize, projection: usize) -> String {
        let name = self.projections[projection];
        format!("{}.{expert}.{name}.weight", self.prefix)
    }

    /// The tensors that make them up, those of each part in the order of its rows. `has` says which
    /// names the checkpoint holds: the form in which it stores them is read off these.
    pub fn tensors(&self, has: impl Fn(&str) -> bool) -> Vec<ExpertsTensor> {
        let packed = self.packed();
        let is_packed = match self.alternating {
            true => !has(&self.unfused(0, 0)),
            false => has(&packed[0].tensor.name),
        };
        let mut tensors = if is_packed {
            packed
        } else {
            self.unfused_tensors()
        };
        if self.alternating {
            let biases: Vec<_> = tensors.iter().map(ExpertsTensor::bias).collect();
            tensors.extend(biases);
        }
        tensors
    }

    /// The matrices of all experts in a tensor for each part.
    fn packed(&self) -> Vec<ExpertsTensor> {
        let (experts, hidden, width) = (self.num_experts, self.hidden, self.width);
        let tensor = |part, name, [rows, columns]: [usize; 2]| {
            let extents = match self.alternating {
                true => [experts, columns, rows],
                false => [experts, rows, columns],
            };
            let name = format!("{}.{name}", self.prefix);
            ExpertsTensor {
                tensor: required(name, extents.to_vec(), FLOAT),
                part,
                is_bias: false,
                experts,
                rows,
                columns,
                in_turns: self.alternating && part == ExpertsPart::GateUp,
                inputs_first: self.alternating,
            }
        };
        vec![
            tensor(ExpertsPart::GateUp, "gate_up_proj", [2 * width, hidden]),
            tensor(ExpertsPart::Down, "down_proj", [hidden, width]),
        ]
    }

    fn unfused_tensors(&self) -> Vec<ExpertsTensor> {
        let wide = (ExpertsPart::GateUp, [self.width, self.hidden]);
        let kinds = [wide, wide, (ExpertsPart::Down, [self.hidden, self.width])];
        let experts = 0..self.num_experts;
        let tensors = experts.flat_map(|expert| {
            [0, 1, 2].map(|projection| {
                let (part, [rows, columns]) = kinds[projection];
                let name = self.unfused(expert, projection);
                ExpertsTensor {
                    tensor: required(name, vec![rows, columns], EXPERT),
                    part,
                    experts: 1,
                    rows,
                    columns,
                    is_bias: false,
                    in_turns: false,
                    inputs_first: false,
                }
            })
        });
        tensors.collect()
    }
}

impl ExpertsTensor {
    /// The tensor of biases beside these matrices.
    fn bias(&self) -> Self {
        let (name, shape) = match self.tensor.name.strip_suffix(".weight") {
            Some(module) => (format!("{module}.bias"), vec![self.rows]),
            None => (
                format!("{}_bias", self.tensor.name),
                vec![self.experts, self.rows],
            ),
        };
        Self {
            tensor: required(name, shape, FLOAT),
            is_bias: true,
            columns: 1,
            inputs_first: false,
            ..*self
        }
    }
}
