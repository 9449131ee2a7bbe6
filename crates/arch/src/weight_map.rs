//! A model's weights as data: which tensors of a checkpoint make up which weight.

use backstop_kernels::BlockFormat;
use backstop_kernels::backend::{ExpertsId, MatrixId, VectorId};
use backstop_weights::{ElementType, ExpectedTensor};

const FLOAT: &[ElementType] = &[ElementType::BF16, ElementType::F32];
const VECTOR: &[ElementType] = &[ElementType::BF16, ElementType::F32, ElementType::F16];
/// FP8, BF16, F32, and every format that GGUF files have.
const EXPERT: &[ElementType] = &{
    let mut all = [ElementType::F8E4M3; 3 + BlockFormat::IN_GGUF.len()];
    (all[1], all[2]) = (ElementType::BF16, ElementType::F32);
    let mut index = 0;
    while index < BlockFormat::IN_GGUF.len() {
        all[3 + index] = match BlockFormat::IN_GGUF[index] {
            BlockFormat::F16 => ElementType::F16,
            format => ElementType::Block(format),
        };
        index += 1;
    }
    all
};
/// Without FP8, which needs the scales of its rows.
const MATRIX: &[ElementType] = EXPERT.split_at(1).1;
const BYTE: &[ElementType] = &[ElementType::U8];
/// Numbers of an MXFP4 block.
const MXFP4_NUMBERS: usize = BlockFormat::Mxfp4.numbers();

/// All weights of a model. Ids are positions in these lists.
#[derive(Clone, Debug, Default)]
pub struct WeightMap {
    /// One-dimensional weights, by [`VectorId`].
    pub vectors: Vec<VectorRequest>,
    /// Matrices, by [`MatrixId`].
    pub matrices: Vec<MatrixRequest>,
    /// Routed experts, by [`ExpertsId`].
    pub experts: Vec<ExpertsRequest>,
    /// Tensors that some checkpoints carry and the model does not need, with their shapes.
    pub ignored: Vec<(String, Vec<usize>)>,
}

/// A one-dimensional weight, put together from one or more tensors.
#[derive(Clone, Debug)]
pub struct VectorRequest {
    /// The tensors, one behind the other.
    pub parts: Vec<VectorPart>,
    /// What it is for.
    pub role: VectorRole,
}

/// One tensor of a vector.
#[derive(Clone, Debug)]
pub struct VectorPart {
    /// Its name.
    pub name: String,
    /// Its elements.
    pub len: usize,
}

/// What a vector is for, as far as it matters to how it is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorRole {
    /// Something is multiplied with it.
    Gain,
    /// It is added to something.
    Bias,
}

impl VectorRequest {
    /// Elements of all parts.
    pub fn elements(&self) -> usize {
        self.parts.iter().map(|part| part.len).sum()
    }
}

/// A matrix, stacked by rows from one or more tensors `[rows, columns]`.
#[derive(Clone, Debug)]
pub struct MatrixRequest {
    /// The tensors, top first.
    pub parts: Vec<MatrixPart>,
    /// Inputs.
    pub columns: usize,
    /// What it is for.
    pub role: MatrixRole,
}

/// What a matrix is for, as far as it matters to how it is stored or made up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatrixRole {
    /// One product like any other.
    #[default]
    Plain,
    /// Both inputs of a gated MLP: gate rows, and then as many up rows.
    GateUp,
    /// The router of a layer with experts: a row for each.
    Router,
}

impl MatrixRequest {
    /// Rows of all parts.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }
}

/// One tensor of a stacked matrix.
#[derive(Clone, Debug)]
pub struct MatrixPart {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: usize,
}

/// The routed experts of one layer. Checkpoints store them unfused, as
/// `{prefix}.{expert}.{projection}.weight`, or packed, as `{prefix}.gate_up_proj`
/// `[experts, 2 * width, hidden]` (gate rows first) and `{prefix}.down_proj`
/// `[experts, hidden, width]`. Unfused FP8 weights carry a `weight_scale` `[rows, 1]`.
///
/// gpt-oss alone stores gate and up rows in turns, and with biases: `{prefix}.gate_up_proj_bias`
/// `[experts, 2 * width]` and `{prefix}.down_proj_bias` `[experts, hidden]`. Its matrices are
/// packed with inputs before outputs, `[experts, hidden, 2 * width]` and `[experts, width,
/// hidden]`, or in MXFP4: `_blocks` `[experts, rows, columns / 32, 16]`, bytes of two E2M1 codes
/// with the low one first, and `_scales` `[experts, rows, columns / 32]`, E8M0 bytes.
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

impl ExpertsRequest {
    /// Name of the packed gate and up tensor.
    pub fn packed_gate_up(&self) -> String {
        format!("{}.gate_up_proj", self.prefix)
    }

    /// Name of the packed down tensor.
    pub fn packed_down(&self) -> String {
        format!("{}.down_proj", self.prefix)
    }

    /// Name of one projection's tensor; `projection` is `gate`, `up` or `down`.
    pub fn unfused(&self, expert: usize, projection: &str) -> String {
        let [gate, up, down] = self.projections;
        let name = match projection {
            "gate" => gate,
            "up" => up,
            _ => down,
        };
        format!("{}.{expert}.{name}.weight", self.prefix)
    }

    /// Names of what MXFP4 makes of the packed tensor of this name: codes and scales.
    pub fn in_blocks(packed: &str) -> [String; 2] {
        ["blocks", "scales"].map(|kind| format!("{packed}_{kind}"))
    }

    fn expected_alternating(&self, in_blocks: bool, tensors: &mut Vec<ExpectedTensor>) {
        let experts = self.num_experts;
        for (name, rows, columns) in [
            (self.packed_gate_up(), 2 * self.width, self.hidden),
            (self.packed_down(), self.hidden, self.width),
        ] {
            tensors.push(required(format!("{name}_bias"), vec![experts, rows], FLOAT));
            if in_blocks {
                let blocks = columns.div_ceil(MXFP4_NUMBERS);
                let [codes, scales] = Self::in_blocks(&name);
                let bytes = MXFP4_NUMBERS / 2;
                tensors.push(required(codes, vec![experts, rows, blocks, bytes], BYTE));
                tensors.push(required(scales, vec![experts, rows, blocks], BYTE));
            } else {
                tensors.push(required(name, vec![experts, columns, rows], FLOAT));
            }
        }
    }

    fn expected_packed(&self, tensors: &mut Vec<ExpectedTensor>) {
        let gate_up = vec![self.num_experts, 2 * self.width, self.hidden];
        let down = vec![self.num_experts, self.hidden, self.width];
        tensors.push(required(self.packed_gate_up(), gate_up, FLOAT));
        tensors.push(required(self.packed_down(), down, FLOAT));
    }

    fn expected_unfused(&self, quantized: bool, tensors: &mut Vec<ExpectedTensor>) {
        for expert in 0..self.num_experts {
            for (projection, rows, columns) in [
                ("gate", self.width, self.hidden),
                ("up", self.width, self.hidden),
                ("down", self.hidden, self.width),
            ] {
                let name = self.unfused(expert, projection);
                if quantized {
                    tensors.push(required(format!("{name}_scale"), vec![rows, 1], FLOAT));
                }
                tensors.push(required(name, vec![rows, columns], EXPERT));
            }
        }
    }
}

fn required(name: String, shape: Vec<usize>, allowed: &'static [ElementType]) -> ExpectedTensor {
    ExpectedTensor {
        name,
        shape,
        allowed,
        required: true,
    }
}

impl WeightMap {
    /// Adds a vector that something is multiplied with.
    pub fn vector(&mut self, name: impl Into<String>, len: usize) -> VectorId {
        self.vector_of(&[(name.into(), len)], VectorRole::Gain)
    }

    /// Adds the bias of a matrix stacked from as many parts (name, rows).
    pub fn bias(&mut self, parts: &[(String, usize)]) -> VectorId {
        self.vector_of(parts, VectorRole::Bias)
    }

    fn vector_of(&mut self, parts: &[(String, usize)], role: VectorRole) -> VectorId {
        let parts = parts.iter().map(|(name, len)| VectorPart {
            name: name.clone(),
            len: *len,
        });
        self.vectors.push(VectorRequest {
            parts: parts.collect(),
            role,
        });
        VectorId(index(self.vectors.len()))
    }

    /// Adds the table of token embeddings.
    pub fn embedding(&mut self, vocabulary: usize, hidden: usize) -> MatrixId {
        self.matrix(
            &[("model.embed_tokens.weight".to_owned(), vocabulary)],
            hidden,
        )
    }

    /// Adds the head, unless it is the embedding; then a checkpoint may still carry a copy.
    pub fn head(&mut self, embedding: MatrixId, tied: bool) -> MatrixId {
        let name = "lm_head.weight".to_owned();
        let table = &self.matrices[embedding.0 as usize];
        let (vocabulary, hidden) = (table.rows(), table.columns);
        if tied {
            self.ignored.push((name, vec![vocabulary, hidden]));
            embedding
        } else {
            self.matrix(&[(name, vocabulary)], hidden)
        }
    }

    /// Adds a matrix stacked from `parts` (name, rows).
    pub fn matrix(&mut self, parts: &[(String, usize)], columns: usize) -> MatrixId {
        let parts = parts.iter().map(|(name, rows)| MatrixPart {
            name: name.clone(),
            rows: *rows,
        });
        self.matrices.push(MatrixRequest {
            parts: parts.collect(),
            columns,
            role: MatrixRole::Plain,
        });
        MatrixId(index(self.matrices.len()))
    }

    /// Adds the gate and up projections (name and name) of a gated MLP of this width.
    pub fn gate_up(&mut self, names: [String; 2], width: usize, columns: usize) -> MatrixId {
        let id = self.matrix(&names.map(|name| (name, width)), columns);
        self.matrices[id.0 as usize].role = MatrixRole::GateUp;
        id
    }

    /// Adds the router of a layer with this many experts.
    pub fn router(&mut self, name: String, experts: usize, columns: usize) -> MatrixId {
        let id = self.matrix(&[(name, experts)], columns);
        self.matrices[id.0 as usize].role = MatrixRole::Router;
        id
    }

    /// Adds the routed experts of a layer.
    pub fn experts(&mut self, request: ExpertsRequest) -> ExpertsId {
        self.experts.push(request);
        ExpertsId(index(self.experts.len()))
    }

    /// Lets checkpoints carry these weights, which are not needed.
    pub fn ignore(&mut self, others: Self) {
        let packed = |experts: &ExpertsRequest| [experts.packed_gate_up(), experts.packed_down()];
        let packed: Vec<String> = others.experts.iter().flat_map(packed).collect();
        // Both forms of experts, of which a checkpoint has one.
        for has_packed in [false, true] {
            let tensors = others.expected(|name| has_packed && packed.iter().any(|p| p == name));
            let tensors = tensors
                .into_iter()
                .filter(|tensor| !has_packed || packed.contains(&tensor.name));
            let tensors = tensors.map(|tensor| (tensor.name, tensor.shape));
            self.ignored.extend(tensors);
        }
    }

    /// Every tensor that a checkpoint must hold. `has` says which names it does hold: the form in
    /// which it stores its experts is read off them.
    pub fn expected(&self, has: impl Fn(&str) -> bool) -> Vec<ExpectedTensor> {
        let mut tensors = Vec::new();
        for part in self.vectors.iter().flat_map(|vector| &vector.parts) {
            tensors.push(required(part.name.clone(), vec![part.len], VECTOR));
        }
        for matrix in &self.matrices {
            for part in &matrix.parts {
                let shape = vec![part.rows, matrix.columns];
                tensors.push(required(part.name.clone(), shape, MATRIX));
            }
        }
        for experts in &self.experts {
            if experts.alternating {
                let [codes, _] = ExpertsRequest::in_blocks(&experts.packed_gate_up());
                experts.expected_alternating(has(&codes), &mut tensors);
            } else if has(&experts.packed_gate_up()) {
                experts.expected_packed(&mut tensors);
            } else {
                let scale = format!("{}_scale", experts.unfused(0, "gate"));
                experts.expected_unfused(has(&scale), &mut tensors);
            }
        }
        for (name, shape) in &self.ignored {
            tensors.push(ExpectedTensor {
                name: name.clone(),
                shape: shape.clone(),
                allowed: MATRIX,
                required: false,
            });
        }
        tensors
    }
}

/// Id of the element that was just pushed onto a list which now has `len` elements.
fn index(len: usize) -> u32 {
    u32::try_from(len - 1).expect("a model has fewer than 2^32 weights")
}
