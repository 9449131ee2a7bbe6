//! The CPU backend.
//!
//! An executor builds [`CpuWeights`] and a [`CpuKvCache`], makes a [`CpuBackend`] of them, and
//! for each step calls [`begin`](CpuBackend::begin), runs the architecture's forward pass over
//! the [`Backend`] operations, and reads [`logits`](CpuBackend::logits), which
//! [`sample`](crate::sample) turns into tokens. Kernels run in the rayon pool of the calling
//! thread.

mod activation;
pub(crate) mod kv_cache;
pub(crate) mod weights;

use std::sync::Arc;

use backstop_types::AttentionSpan;

pub use activation::CpuActivation;
pub use kv_cache::{CpuKvCache, KvGroupLayout, KvShape, KvView};
pub use weights::{CpuExperts, CpuMatrix, CpuWeights, ExpertMatrices};

use crate::backend::{
    AttentionShape, Backend, DraftBackend, ExpertsId, GatedActivation, Indexer, KvLayer,
    LatentShape, LatentWeights, MatrixId, Norm, QueryKeyTransform, Rope, RouterRule, RouterWeights,
    VectorId,
};
use crate::batch::Batch;
use crate::features::InstructionSet;
use crate::ops::add_scaled::AddScaledArgs;
use crate::ops::attention::AttentionArgs;
use crate::ops::concatenate::ConcatenateArgs;
use crate::ops::embed::EmbedArgs;
use crate::ops::experts::ExpertsArgs;
use crate::ops::gated_mlp::GatedMlpArgs;
use crate::ops::head::HeadArgs;
use crate::ops::head_norm::HeadNormArgs;
use crate::ops::indexer::{IndexKeysArgs, IndexerArgs, Selection};
use crate::ops::kv_write::{KvWriteArgs, SequenceRows};
use crate::ops::latent::{LatentInputArgs, LatentOutputArgs};
use crate::ops::linear::LinearArgs;
use crate::ops::norm::{AddNormArgs, NormArgs};
use crate::ops::rope::{RopeArgs, RopeTable};
use crate::ops::router::{RouterArgs, Routing};
use crate::residual::Residual;
use activation::BufferPool;

/// Chosen experts and their weights for each token.
pub type CpuRouting = Routing;

/// Runs a model's operations on the CPU.
#[derive(Debug)]
pub struct CpuBackend {
    instructions: InstructionSet,
    weights: Arc<CpuWeights>,
    kv: CpuKvCache,
    pool: Arc<BufferPool>,
    batch: Batch,
    /// For each group, the block tables of the batch's sequences.
    tables: Vec<Vec<Vec<u32>>>,
    /// The batch's angles, for each embedding in use.
    rope_tables: Vec<(Rope, RopeTable)>,
    logits: Option<CpuActivation>,
    /// Those of the step, if they are wanted.
    residuals: Option<Vec<Residual>>,
}

impl CpuBackend {
    /// A backend with the processor's best instructions.
    pub fn new(weights: Arc<CpuWeights>, kv: CpuKvCache) -> Self {
        Self::with_instructions(weights, kv, InstructionSet::detect())
    }

    /// A backend with given instructions, which the processor must have.
    pub fn with_instructions(
        weights: Arc<CpuWeights>,
        kv: CpuKvCache,
        instructions: InstructionSet,
    ) -> Self {
        assert!(
            instructions <= InstructionSet::detect(),
            "instructions that the processor lacks"
        );
        let tables = vec![Vec::new(); kv.num_groups()];
        Self {
            instructions,
            weights,
            kv,
            pool: Arc::default(),
            batch: Batch::new(),
            tables,
            rope_tables: Vec::new(),
            logits: None,
            residuals: None,
        }
    }

    /// From here on, keeps what every norm behind a layer's parts finds.
    pub fn watch_residuals(&mut self) {
        self.residuals = Some(Vec::new());
    }

    /// What was kept since the last call.
    pub fn take_residuals(&mut self) -> Vec<Residual> {
        self.residuals
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Sets the batch of the next step. `tables[group][slot]` is the block table of a slot:
    /// entry `i` maps positions `i * block_size ..`. The tables of the batch's slots must cover
    /// all positions up to the last of the batch; entries wholly before the window of a sliding
    /// group are never read and may hold anything.
    pub fn begin(&mut self, batch: &Batch, tables: &[impl AsRef<[Vec<u32>]>]) {
        batch.check();
        assert_eq!(
            tables.len(),
            self.kv.num_groups(),
            "one set of block tables for each group"
        );
        self.batch.clone_from(batch);
        self.rope_tables.clear();
        self.logits = None;
        for (group, kept) in self.tables.iter_mut().enumerate() {
            kept.resize(batch.sequences.len(), Vec::new());
            for (sequence, kept) in batch.sequences.iter().zip(kept) {
                let table = &tables[group].as_ref()[sequence.slot as usize];
                kept.clone_from(table);
                check_table(table, sequence, &self.kv, group);
            }
        }
    }

    /// Logits `[logit_rows, vocabulary]` of the step's last `head`; empty before it.
    pub fn logits(&self) -> &[f32] {
        self.logits.as_ref().map_or(&[], CpuActivation::values)
    }

    /// Logits of the `index`-th entry of the batch's `logit_rows`.
    pub fn logits_of(&self, index: usize) -> &[f32] {
        let columns = self.logits.as_ref().map_or(0, CpuActivation::columns);
        &self.logits()[index * columns..][..columns]
    }

    /// The weights.
    pub fn weights(&self) -> &Arc<CpuWeights> {
        &self.weights
    }

    /// The KV cache.
    pub fn kv(&self) -> &CpuKvCache {
        &self.kv
    }

    /// The instructions that kernels run with.
    pub fn instructions(&self) -> InstructionSet {
        self.instructions
    }

    /// Rows of the batch that has begun.
    pub fn rows(&self) -> usize {
        self.batch.tokens.len()
    }

    /// Rotates `heads` heads of each row in place.
    fn rotate(&mut self, heads_of_rows: &mut CpuActivation, heads: u32, rope: Rope) {
        let index = self.rope_table(rope);
        let shape = AttentionShape {
            heads,
            kv_heads: 0,
            head_dim: heads_of_rows.columns() as u32 / heads,
            scale: 1.0,
        };
        RopeArgs {
            qkv: heads_of_rows.values_mut(),
            shape,
            table: &self.rope_tables[index].1,
        }
        .run(self.instructions);
    }

    fn attend(
        &mut self,
        qkv: &CpuActivation,
        shape: AttentionShape,
        layer: KvLayer,
        sinks: Option<VectorId>,
        selection: Option<&Selection>,
    ) -> CpuActivation {
        let sequences = sequence_rows(&self.batch, &self.tables[layer.group as usize]);
        let span: AttentionSpan = self.kv.layout(layer.group as usize).span;
        let mut out = self
            .pool
            .take(qkv.rows(), (shape.heads * shape.head_dim) as usize);
        let args = AttentionArgs {
            qkv: qkv.values(),
            shape,
            sinks: sinks.map(|id| self.weights.vector(id)),
            span,
            selection,
            sequences: &sequences,
            cache: self.kv.view(layer),
        };
        args.run(self.instructions, out.values_mut());
        out
    }

    /// Index in `rope_tables` of the batch's angles, computed when first asked for.
    fn rope_table(&mut self, rope: Rope) -> usize {
        let known = self.rope_tables.iter().position(|entry| entry.0 == rope);
        known.unwrap_or_else(|| {
            let table = RopeTable::new(&self.batch.positions, &rope);
            self.rope_tables.push((rope, table));
            self.rope_tables.len() - 1
        })
    }
}

/// Panics unless the table covers the positions that the sequence needs with blocks of the pool.
fn check_table(table: &[u32], sequence: &crate::BatchSequence, kv: &CpuKvCache, group: usize) {
    let layout = kv.layout(group);
    let block_size = kv.block_size();
    let first = layout.span.first_visible(sequence.first_position) / block_size;
    let last = (sequence.end_position() - 1) / block_size;
    let needed = table.get(first as usize..=last as usize);
    assert!(
        needed.is_some_and(|blocks| blocks.iter().all(|&block| block < layout.num_blocks)),
        "block table of slot {} in group {group} does not cover positions up to {}",
        sequence.slot,
        sequence.end_position()
    );
}

/// The batch's sequences with their tables.
fn sequence_rows<'a>(batch: &Batch, tables: &'a [Vec<u32>]) -> Vec<SequenceRows<'a>> {
    let rows = batch
        .sequences
        .iter()
        .zip(tables)
        .map(|(sequence, table)| SequenceRows {
            first_row: sequence.rows.start as usize,
            rows: sequence.rows.len(),
            first_position: sequence.first_position as usize,
            table,
        });
    rows.collect()
}

impl Backend for CpuBackend {
    type Activation = CpuActivation;
    type Routing = CpuRouting;
    type Selection = Selection;

    fn embed(&mut self, table: MatrixId) -> CpuActivation {
        let table = self.weights.matrix(table).view();
        let mut out = self.pool.take(self.rows(), table.columns());
        EmbedArgs {
            table,
            tokens: &self.batch.tokens,
        }
        .run(self.instructions, out.values_mut());
        out
    }

    fn norm(&mut self, hidden: &CpuActivation, weight: VectorId, norm: Norm) -> CpuActivation {
        let weight = self.weights.vector(weight);
        assert_eq!(weight.len(), hidden.columns(), "columns of a norm");
        let mut out = self.pool.take(hidden.rows(), hidden.columns());
        let args = NormArgs {
            hidden: hidden.values(),
            weight,
            bias: None,
            norm,
        };
        args.run(self.instructions, out.values_mut());
        out
    }

    fn add_norm(
        &mut self,
        hidden: &mut CpuActivation,
        addends: [Option<CpuActivation>; 2],
        weight: VectorId,
        norm: Norm,
    ) -> CpuActivation {
        let before = weight;
        let weight = self.weights.vector(weight);
        assert_eq!(weight.len(), hidden.columns(), "columns of a norm");
        let mut out = self.pool.take(hidden.rows(), hidden.columns());
        let addends = [&addends[0], &addends[1]].map(|a| a.as_ref().map(CpuActivation::values));
        let args = AddNormArgs {
            hidden: hidden.values_mut(),
            addends,
            weight,
            norm,
        };
        args.run(self.instructions, out.values_mut());
        if let Some(residuals) = &mut self.residuals {
            let values = hidden.values().to_vec();
            residuals.push(Residual { before, values });
        }
        out
    }

    fn linear(
        &mut self,
        input: &CpuActivation,
        weight: MatrixId,
        bias: Option<VectorId>,
    ) -> CpuActivation {
        let weight = self.weights.matrix(weight).view();
        let mut out = self.pool.take(input.rows(), weight.rows());
        LinearArgs {
            input: input.values(),
            weight,
            bias: bias.map(|bias| self.weights.vector(bias)),
        }
        .run(self.instructions, out.values_mut());
        out
    }

    fn rope_and_cache(
        &mut self,
        qkv: &mut CpuActivation,
        shape: AttentionShape,
        transform: QueryKeyTransform,
        layer: KvLayer,
    ) {
        if let Some(norm) = transform.norm {
            HeadNormArgs {
                qkv: qkv.values_mut(),
                shape,
                weights: [norm.query, norm.key].map(|weight| self.weights.vector(weight)),
                epsilon: norm.epsilon,
            }
            .run(self.instructions);
        }
        if let Some(rope) = transform.rope {
            let index = self.rope_table(rope);
            RopeArgs {
                qkv: qkv.values_mut(),
                shape,
                table: &self.rope_tables[index].1,
            }
            .run(self.instructions);
        }
        let sequences = sequence_rows(&self.batch, &self.tables[layer.group as usize]);
        let (layout, cache) = self.kv.view_mut(layer);
        KvWriteArgs {
            qkv: qkv.values(),
            shape,
            sequences: &sequences,
            layout,
            cache,
        }
        .run();
    }

    fn paged_attention(
        &mut self,
        qkv: &CpuActivation,
        shape: AttentionShape,
        sinks: Option<VectorId>,
        layer: KvLayer,
    ) -> CpuActivation {
        self.attend(qkv, shape, layer, sinks, None)
    }

    fn select_keys(
        &mut self,
        mut queries: CpuActivation,
        keys: &CpuActivation,
        head_weights: &CpuActivation,
        indexer: Indexer,
        layer: KvLayer,
    ) -> Selection {
        let mut normed = self.pool.take(keys.rows(), keys.columns());
        let args = NormArgs {
            hidden: keys.values(),
            weight: self.weights.vector(indexer.key_gain),
            bias: Some(self.weights.vector(indexer.key_bias)),
            norm: Norm::LayerWithoutBias {
                epsilon: indexer.epsilon,
            },
        };
        args.run(self.instructions, normed.values_mut());
        self.rotate(&mut normed, 1, indexer.rope);
        self.rotate(&mut queries, indexer.heads, indexer.rope);
        let sequences = sequence_rows(&self.batch, &self.tables[layer.group as usize]);
        let (layout, cache) = self.kv.view_mut(layer);
        IndexKeysArgs {
            keys: normed.values(),
            sequences: &sequences,
            layout,
            cache,
        }
        .run();
        let args = IndexerArgs {
            queries: queries.values(),
            head_weights: head_weights.values(),
            heads: indexer.heads as usize,
            chosen: indexer.chosen as usize,
            sequences: &sequences,
            cache: self.kv.view(layer),
        };
        args.run(self.instructions)
    }

    fn selected_attention(
        &mut self,
        qkv: &CpuActivation,
        shape: AttentionShape,
        selection: &Selection,
        layer: KvLayer,
    ) -> CpuActivation {
        self.attend(qkv, shape, layer, None, Some(selection))
    }

    fn latent_input(
        &mut self,
        queries: &CpuActivation,
        latents: &CpuActivation,
        weights: LatentWeights,
        shape: LatentShape,
    ) -> CpuActivation {
        let columns = (shape.heads + 2) * shape.head_dim();
        let mut out = self.pool.take(queries.rows(), columns as usize);
        let args = LatentInputArgs {
            queries: queries.values(),
            latents: latents.values(),
            up: self.weights.matrix(weights.up).view(),
            gain: self.weights.vector(weights.gain),
            epsilon: weights.epsilon,
            shape,
        };
        args.run(self.instructions, out.values_mut());
        out
    }

    fn latent_output(
        &mut self,
        attended: &CpuActivation,
        weights: LatentWeights,
        shape: LatentShape,
    ) -> CpuActivation {
        let columns = shape.heads * shape.value_dim;
        let mut out = self.pool.take(attended.rows(), columns as usize);
        let args = LatentOutputArgs {
            attended: attended.values(),
            up: self.weights.matrix(weights.up).view(),
            shape,
        };
        args.run(self.instructions, out.values_mut());
        out
    }

    fn router(
        &mut self,
        input: &CpuActivation,
        weights: RouterWeights,
        rule: RouterRule,
    ) -> CpuRouting {
        RouterArgs {
            input: input.values(),
            gate: self.weights.matrix(weights.gate).view(),
            bias: weights.bias.map(|id| self.weights.vector(id)),
            correction: weights.correction.map(|id| self.weights.vector(id)),
            rule,
        }
        .run(self.instructions)
    }

    fn experts(
        &mut self,
        input: &CpuActivation,
        routing: CpuRouting,
        experts: ExpertsId,
        activation: GatedActivation,
    ) -> CpuActivation {
        let experts = self.weights.layer_experts(experts);
        let mut out = self.pool.take(input.rows(), experts.hidden);
        let args = ExpertsArgs {
            input: input.values(),
            routing: &routing,
            experts,
            activation,
        };
        args.run(self.instructions, out.values_mut());
        out
    }

    fn gated_mlp(
        &mut self,
        input: &CpuActivation,
        gate_up: MatrixId,
        down: MatrixId,
    ) -> CpuActivation {
        let gate_up = self.weights.matrix(gate_up).view();
        let down = self.weights.matrix(down).view();
        let mut out = self.pool.take(input.rows(), down.rows());
        let args = GatedMlpArgs {
            input: input.values(),
            gate_up,
            down,
        };
        args.run(self.instructions, out.values_mut());
        out
    }

    fn add_scaled(&mut self, a: CpuActivation, b: CpuActivation, scale: f32) -> CpuActivation {
        let mut out = self.pool.take(a.rows(), a.columns());
        let args = AddScaledArgs {
            a: a.values(),
            b: b.values(),
            scale,
        };
        args.run(self.instructions, out.values_mut());
        out
    }

    fn head(&mut self, input: &CpuActivation, head: MatrixId, scale: f32) {
        let weight = self.weights.matrix(head).view();
        let rows = &self.batch.logit_rows;
        let mut out = self.pool.take(rows.len(), weight.rows());
        let args = HeadArgs {
            input: input.values(),
            rows,
            weight,
            scale,
        };
        args.run(self.instructions, out.values_mut());
        self.logits = Some(out);
    }
}

impl DraftBackend for CpuBackend {
    fn concatenate(
        &mut self,
        left: &CpuActivation,
        right: &CpuActivation,
        rows: &[u32],
    ) -> CpuActivation {
        let mut out = self.pool.take(rows.len(), left.columns() + right.columns());
        let args = ConcatenateArgs {
            left: left.values(),
            left_columns: left.columns(),
            right: right.values(),
            right_columns: right.columns(),
            rows,
        };
        args.run(out.values_mut());
        out
    }
}
