//! A model's weights as data: which tensors of a checkpoint make up which weight.

mod experts;

use backstop_kernels::BlockFormat;
use backstop_kernels::backend::{ExpertsId, MatrixId, VectorId};
use backstop_weights::{ElementType, ExpectedTensor};

pub use experts::{ExpertsPart, ExpertsRequest, ExpertsTensor};

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
    /// The embedding, if the head is the same.
    pub tied: Option<TiedHead>,
}

/// A head that is the table of embeddings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TiedHead {
    /// The table's tensor.
    pub embedding: String,
    /// What a head of its own would be called. Some checkpoints carry a copy under this name.
    pub head: String,
    /// Rows and columns of either.
    pub shape: [usize; 2],
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

    /// Adds the head, unless it is the embedding.
    pub fn head(&mut self, embedding: MatrixId, tied: bool) -> MatrixId {
        let head = "lm_head.weight".to_owned();
        let table = &self.matrices[embedding.0 as usize];
        let shape = [table.rows(), table.columns];
        if !tied {
            return self.matrix(&[(head, shape[0])], shape[1]);
        }
        self.tied = Some(TiedHead {
            embedding: table.parts[0].name.clone(),
            head,
            shape,
        });
        embedding
    }

    /// Puts this before the names of all tensors.
    pub(crate) fn set_prefix(&mut self, prefix: &str) {
        let vectors = self.vectors.iter_mut().flat_map(|vector| &mut vector.parts);
        let matrices = self
            .matrices
            .iter_mut()
            .flat_map(|matrix| &mut matrix.parts);
        let experts = self.experts.iter_mut().map(|experts| &mut experts.prefix);
        let ignored = self.ignored.iter_mut().map(|(name, _)| name);
        let tied = self.tied.iter_mut();
        let tied = tied.flat_map(|tied| [&mut tied.embedding, &mut tied.head]);
        let names = vectors.map(|part| &mut part.name);
        let names = names.chain(matrices.map(|part| &mut part.name));
        for name in names.chain(experts).chain(ignored).chain(tied) {
            name.insert_str(0, prefix);
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

    /// The same of one tensor with the gate's rows and then as many of up.
    pub fn fused_gate_up(&mut self, name: String, width: usize, columns: usize) -> MatrixId {
        let id = self.matrix(&[(name, 2 * width)], columns);
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

    /// Lets checkpoints carry these weights, of which none are experts, and which are not needed.
    pub fn ignore(&mut self, others: Self) {
        let tensors = others.expected(|_| false).into_iter();
        self.ignored
            .extend(tensors.map(|tensor| (tensor.name, tensor.shape)));
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
            let experts = experts.tensors(&has).into_iter();
            tensors.extend(experts.map(|tensor| tensor.tensor));
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
