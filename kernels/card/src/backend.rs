//! The operations of a transformer step, queued on a device.
//!
//! Everything that varies between steps of one shape lies in device memory (see [`super::step`]),
//! so that the launches of a step can be recorded once and replayed. The feed-forward branch of a
//! layer is queued on a stream of its own, where it runs beside the attention branch; both join
//! in the next `add_norm`.

mod attention;

use std::sync::Arc;

use backstop_kernels::backend::{
    AttentionShape, Backend, ExpertsId, GatedActivation, KvLayer, MatrixId, NoSelection, Norm,
    QueryKeyTransform, RouterRule, RouterWeights, VectorId,
};
use backstop_kernels::{BatchSequence, Element, Residual};

use super::activation::{Panels, Rows};
use super::arena::{Arena, Piece};
use super::device::{Device, DeviceError, DevicePointer, Event, Stream};
use super::kv_cache::CudaKvCache;
use super::pack::RowSource;
use super::pinned::Pinned;
use super::product::{self, Epilogue, Product, ProductTokens};
use super::step::StepShape;
use super::weights::CudaWeights;
use crate::ops::add_scaled::AddScaled;
use crate::ops::embed::Embed;
use crate::ops::experts::{self as experts, DeviceRouting, Queue};
use crate::ops::gated_mlp::{self as gated_mlp, GatedMlpWeights};
use crate::ops::head::{self as head, LogitRows};
use crate::ops::linear;
use crate::ops::norm::AddNorm;
use crate::ops::router::Choose;

pub use attention::{AttentionMemory, AttentionNeeds, StepLimits};

/// Activations in the form in which the last operation left them.
#[derive(Debug)]
pub enum CudaActivation {
    /// The residual stream, f32.
    Residual(Piece, usize),
    /// Normed, ready for matrix products.
    Panels(Panels),
    /// The output of a product or of experts, for whoever reads it next.
    Rows(Rows),
}

/// The choice of experts, see [`Backend::router`].
#[derive(Debug)]
pub struct CudaRouting {
    experts: Piece,
    weights: Piece,
    top_k: usize,
}

/// Queues operations on a device. A failed launch shows in [`CudaBackend::take_error`]; the
/// operations after it do nothing. Models keep to [`ABILITIES`](crate::ABILITIES).
pub struct CudaBackend {
    device: Arc<dyn Device>,
    weights: Arc<CudaWeights>,
    kv: CudaKvCache,
    arena: Arena,
    attention: AttentionMemory,
    shape: StepShape,
    /// Marks where a layer's branches part.
    fork: Event,
    join: Event,
    /// The feed-forward branch has work on the side stream.
    side_is_busy: bool,
    logits: Option<Rows>,
    error: Option<DeviceError>,
    /// Those of the step, if they are wanted.
    residuals: Option<Vec<Residual>>,
}

impl CudaBackend {
    /// A backend for steps of at most the shape that the memory was made for.
    pub fn new(
        device: &Arc<dyn Device>,
        weights: Arc<CudaWeights>,
        kv: CudaKvCache,
        arena: Arena,
        attention: AttentionMemory,
        shape: StepShape,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            fork: device.create_event()?,
            join: device.create_event()?,
            device: Arc::clone(device),
            weights,
            kv,
            arena,
            attention,
            shape,
            side_is_busy: false,
            logits: None,
            error: None,
            residuals: None,
        })
    }

    /// The weights.
    pub fn weights(&self) -> &Arc<CudaWeights> {
        &self.weights
    }

    /// From here on, keeps what every norm behind a layer's parts finds; waits for each.
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

    /// Turns to a step of another shape.
    pub fn begin(&mut self, shape: StepShape) {
        self.logits = None;
        self.arena.recycle();
        self.shape = shape;
    }

    /// Logits of the step, f32 `[logit rows, vocabulary]`.
    pub fn logits(&self) -> Option<DevicePointer> {
        self.logits.as_ref().map(|rows| rows.memory[0].pointer())
    }

    /// The first launch that failed since the last call.
    pub fn take_error(&mut self) -> Option<DeviceError> {
        self.error.take()
    }

    /// The arena, for those who queue more work after the logits.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The KV cache.
    pub fn kv(&self) -> &CudaKvCache {
        &self.kv
    }

    /// What the model's layers have asked of attention in a rehearsal.
    pub fn attention_needs(&self) -> &AttentionNeeds {
        self.attention.needs()
    }

    /// Plans the attention of a step and queues the upload of the plans.
    pub fn plan(
        &mut self,
        sequences: &[BatchSequence],
        staging: &mut Pinned,
    ) -> Result<(), DeviceError> {
        self.attention
            .plan(&*self.device, &self.kv, sequences, staging)
    }

    /// Lets launches serve any decode step, for recording them.
    pub fn expect_decode(&mut self) {
        self.attention.expect_decode(&self.kv);
    }

    fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Runs `launch` unless something failed before.
    fn queue<T>(
        &mut self,
        launch: impl FnOnce(&mut Self) -> Result<T, DeviceError>,
        fallback: impl FnOnce(&mut Self) -> T,
    ) -> T {
        if self.error.is_none() {
            match launch(self) {
                Ok(value) => return value,
                Err(error) => self.error = Some(error),
            }
        }
        fallback(self)
    }

    /// The side stream, which from here on runs beside the main one.
    fn branch(&mut self) -> Result<Stream, DeviceError> {
        if !self.side_is_busy {
            self.device.wait_event(Stream::Side, self.fork)?;
            self.side_is_busy = true;
        }
        Ok(Stream::Side)
    }

    /// Lets the main stream wait for the side one.
    fn rejoin(&mut self) -> Result<(), DeviceError> {
        if self.side_is_busy {
            self.device.record(self.join, Stream::Side)?;
            self.device.wait_event(Stream::Main, self.join)?;
            self.side_is_busy = false;
        }
        Ok(())
    }

    fn keep_residual(&mut self, hidden: &CudaActivation, before: VectorId) {
        let CudaActivation::Residual(residual, columns) = hidden else {
            unreachable!("norms between products")
        };
        let mut values = vec![0f32; self.rows() * columns];
        let read = |backend: &mut Self| {
            // SAFETY: the residual has this many numbers, and they are read after the wait.
            unsafe {
                let to = values.as_mut_ptr().cast();
                let bytes = size_of_val(values.as_slice());
                let from = residual.pointer();
                backend.device.download(Stream::Main, to, from, bytes)?;
            }
            backend.device.synchronize(Stream::Main)
        };
        self.queue(read, |_| ());
        if let Some(residuals) = &mut self.residuals {
            residuals.push(Residual { before, values });
        }
    }

    fn normalise(
        &mut self,
        hidden: &CudaActivation,
        addends: [RowSource; 2],
        weight: VectorId,
        norm: Norm,
    ) -> CudaActivation {
        let CudaActivation::Residual(residual, columns) = hidden else {
            unreachable!("norms between products")
        };
        let columns = *columns;
        let formats = self.weights.input_formats();
        let panels = Panels::take(&self.arena, self.rows(), columns, formats);
        let launch = AddNorm {
            residual: residual.pointer(),
            addends,
            weight: self.weights.vector(weight, columns),
            norm,
            out: panels.output(),
            rows: self.rows(),
            columns,
        };
        let queued = |backend: &mut Self| {
            backend.rejoin()?;
            // SAFETY: all activations have the step's rows.
            unsafe { launch.launch(&*backend.device, Stream::Main)? };
            backend.device.record(backend.fork, Stream::Main)
        };
        self.queue(queued, |_| ());
        CudaActivation::Panels(panels)
    }
}

/// The panels of a normed activation.
fn panels(activation: &CudaActivation) -> &Panels {
    match activation {
        CudaActivation::Panels(panels) => panels,
        _ => unreachable!("inputs of products are normed, or attention's output"),
    }
}

/// An activation as an addend.
fn source(activation: &CudaActivation) -> RowSource {
    match activation {
        CudaActivation::Residual(piece, _) => RowSource::f32(piece.pointer()),
        CudaActivation::Rows(rows) => rows.source,
        CudaActivation::Panels(_) => unreachable!("panels are inputs of products only"),
    }
}

/// What stands for rows that could not be computed.
fn nothing(columns: usize) -> Rows {
    Rows {
        source: RowSource::None,
        columns,
        memory: Vec::new(),
    }
}

impl Backend for CudaBackend {
    type Activation = CudaActivation;
    type Routing = CudaRouting;
    type Selection = NoSelection;

    fn embed(&mut self, table: MatrixId) -> CudaActivation {
        let table = self.weights.matrix(table);
        let columns = table.matrix.columns;
        let out = self.arena.take(self.rows() * columns * 4);
        let inputs = &self.shape.inputs;
        let embed = Embed {
            table: table.data,
            tokens: inputs.tokens,
            last_token: inputs.last_token,
            out: out.pointer(),
            rows: self.rows(),
            columns,
            vocabulary: table.matrix.rows,
            slots: self.shape.num_slots,
        };
        // SAFETY: the step's inputs have its rows, and so has the output.
        self.queue(
            |backend| unsafe { embed.launch(&*backend.device, Stream::Main) },
            |_| (),
        );
        CudaActivation::Residual(out, columns)
    }

    fn norm(&mut self, hidden: &CudaActivation, weight: VectorId, norm: Norm) -> CudaActivation {
        self.normalise(hidden, [RowSource::None; 2], weight, norm)
    }

    fn add_norm(
        &mut self,
        hidden: &mut CudaActivation,
        addends: [Option<CudaActivation>; 2],
        weight: VectorId,
        norm: Norm,
    ) -> CudaActivation {
        let sources = [&addends[0], &addends[1]]
            .map(|addend| addend.as_ref().map_or(RowSource::None, source));
        let normed = self.normalise(hidden, sources, weight, norm);
        drop(addends);
        if self.residuals.is_some() {
            self.keep_residual(hidden, weight);
        }
        // All streams have joined: what the layer used is free again.
        self.arena.recycle();
        normed
    }

    fn linear(
        &mut self,
        input: &CudaActivation,
        weight: MatrixId,
        bias: Option<VectorId>,
    ) -> CudaActivation {
        let mut weights = self.weights.matrix(weight);
        if let Some(bias) = bias {
            weights.bias = self.weights.vector(bias, weights.matrix.rows);
        }
        let rows = self.queue(
            |backend| {
                let (device, arena) = (&*backend.device, &backend.arena);
                // SAFETY: the input has the step's rows.
                unsafe {
                    linear::run(
                        device,
                        Stream::Main,
                        arena,
                        panels(input),
                        backend.rows(),
                        weights,
                    )
                }
            },
            |_| nothing(weights.matrix.rows),
        );
        CudaActivation::Rows(rows)
    }

    fn rope_and_cache(
        &mut self,
        qkv: &mut CudaActivation,
        shape: AttentionShape,
        transform: QueryKeyTransform,
        layer: KvLayer,
    ) {
        let queries = self.queue(
            |backend| backend.queue_rope_and_cache(source(qkv), shape, transform, layer),
            |backend| backend.arena.take(1),
        );
        let columns = (shape.heads * shape.head_dim) as usize;
        *qkv = CudaActivation::Rows(Rows {
            source: RowSource::Bf16 {
                values: queries.pointer(),
            },
            columns,
            memory: vec![queries],
        });
    }

    fn paged_attention(
        &mut self,
        qkv: &CudaActivation,
        shape: AttentionShape,
        sinks: Option<VectorId>,
        layer: KvLayer,
    ) -> CudaActivation {
        assert_eq!(sinks, None, "attention sinks");
        let columns = (shape.heads * shape.head_dim) as usize;
        let out = Panels::take(&self.arena, self.rows(), columns, &[Element::BF16]);
        let RowSource::Bf16 { values } = source(qkv) else {
            unreachable!("queries were left by rope_and_cache")
        };
        self.queue(
            |backend| backend.queue_attention(values, &out, shape, layer),
            |_| (),
        );
        CudaActivation::Panels(out)
    }

    fn router(
        &mut self,
        input: &CudaActivation,
        router: RouterWeights,
        rule: RouterRule,
    ) -> CudaRouting {
        assert_eq!(
            (router.bias, router.correction),
            (None, None),
            "biases of a router"
        );
        assert_eq!((rule.groups, rule.factor), (None, 1.0), "rule of a router");
        let weights = self.weights.matrix(router.gate);
        let (rows, num_experts) = (self.rows(), weights.matrix.rows);
        let top_k = rule.top_k as usize;
        let routing = CudaRouting {
            experts: self.arena.take(rows * top_k * 4),
            weights: self.arena.take(rows * top_k * 4),
            top_k,
        };
        let parts = product::parts(&weights.matrix, rows);
        let logits = self.arena.take(parts * rows * num_experts * 4);
        let product = Product {
            weights,
            input: panels(input).input(Element::BF16),
            tokens: ProductTokens::All(rows),
            epilogue: Epilogue::Parts,
            parts,
            output: logits.pointer(),
            scale: 1.0,
        };
        let choose = Choose {
            logits: RowSource::Parts {
                values: logits.pointer(),
                parts,
                part_rows: rows,
                rounded: false,
            },
            slots: self.shape.inputs.slots,
            experts: routing.experts.pointer(),
            weights: routing.weights.pointer(),
            rows,
            num_experts,
            rule,
        };
        let queued = |backend: &mut Self| {
            let stream = backend.branch()?;
            // SAFETY: the memory was taken in the sizes that the kernels want.
            unsafe {
                product.launch(&*backend.device, stream)?;
                choose.launch(&*backend.device, stream)
            }
        };
        self.queue(queued, |_| ());
        routing
    }

    fn experts(
        &mut self,
        input: &CudaActivation,
        routing: CudaRouting,
        id: ExpertsId,
        activation: GatedActivation,
    ) -> CudaActivation {
        assert_eq!(
            activation,
            GatedActivation::Swiglu,
            "activations of experts"
        );
        let weights = Arc::clone(&self.weights);
        let layer = weights.layer_experts(id);
        let chosen = DeviceRouting {
            experts: routing.experts.pointer(),
            weights: routing.weights.pointer(),
            top_k: routing.top_k,
        };
        let mut rows = self.queue(
            |backend| {
                let queue = Queue {
                    stream: backend.branch()?,
                    device: &*backend.device,
                    arena: &backend.arena,
                };
                // SAFETY: input and routing have the step's rows.
                unsafe { experts::run(queue, panels(input), backend.rows(), chosen, layer) }
            },
            |_| nothing(layer.down.matrix.rows),
        );
        // The weights are read together with the experts' results.
        rows.memory.push(routing.weights);
        CudaActivation::Rows(rows)
    }

    fn gated_mlp(
        &mut self,
        input: &CudaActivation,
        gate_up: MatrixId,
        down: MatrixId,
    ) -> CudaActivation {
        let weights = GatedMlpWeights {
            gate_up: self.weights.matrix(gate_up),
            down: self.weights.matrix(down),
        };
        let rows = self.queue(
            |backend| {
                let stream = backend.branch()?;
                let (device, arena) = (&*backend.device, &backend.arena);
                // SAFETY: the input has the step's rows.
                unsafe {
                    gated_mlp::run(
                        device,
                        stream,
                        arena,
                        panels(input),
                        backend.rows(),
                        &weights,
                    )
                }
            },
            |_| nothing(weights.down.matrix.rows),
        );
        CudaActivation::Rows(rows)
    }

    fn add_scaled(&mut self, a: CudaActivation, b: CudaActivation, scale: f32) -> CudaActivation {
        let (columns, is_residual) = match &a {
            CudaActivation::Residual(_, columns) => (*columns, true),
            CudaActivation::Rows(rows) => (rows.columns, false),
            CudaActivation::Panels(_) => unreachable!("panels are inputs of products only"),
        };
        let out = self.arena.take(self.rows() * columns * 4);
        let sum = AddScaled {
            a: source(&a),
            b: source(&b),
            scale,
            out: out.pointer(),
            rows: self.rows(),
            columns,
        };
        let queued = |backend: &mut Self| {
            // Products that are added come from the feed-forward branch, and so does their sum.
            let stream = match is_residual {
                true => Stream::Main,
                false => backend.branch()?,
            };
            // SAFETY: all have the step's rows.
            unsafe { sum.launch(&*backend.device, stream) }
        };
        self.queue(queued, |_| ());
        if is_residual {
            return CudaActivation::Residual(out, columns);
        }
        CudaActivation::Rows(Rows {
            source: RowSource::f32(out.pointer()),
            columns,
            memory: vec![out],
        })
    }

    fn head(&mut self, input: &CudaActivation, head: MatrixId, scale: f32) {
        let weights = self.weights.matrix(head);
        let inputs = &self.shape.inputs;
        let chosen = LogitRows {
            rows: inputs.logit_rows,
            counts: inputs.logit_counts,
            count: self.shape.logit_rows,
        };
        let logits = self.queue(
            |backend| {
                let (device, arena) = (&*backend.device, &backend.arena);
                let head = head::Head { weights, scale };
                // SAFETY: the input has the step's rows, among which the chosen ones are.
                unsafe { head::run(device, Stream::Main, arena, panels(input), chosen, head) }
            },
            |backend| Rows {
                memory: vec![backend.arena.take(1)],
                ..nothing(weights.matrix.rows)
            },
        );
        self.logits = Some(logits);
    }
}
