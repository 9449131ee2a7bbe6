//! A small model on the backend: what else is in the batch must not matter.

use std::sync::Arc;

use backstop_kernels::backend::{
    AttentionShape, Backend, ExpertsId, GatedActivation, KvLayer, MatrixId, Norm,
    QueryKeyTransform, Rope, RopePairing, RopeScaling, RouterRule, RouterScoring, RouterWeights,
    VectorId,
};
use backstop_kernels::random::random_values;
use backstop_kernels::{
    Batch, CpuBackend, CpuKvCache, CpuMatrix, CpuWeights, Element, InstructionSet, KvGroupLayout,
};
use backstop_proof::weights::{random_experts, random_matrix};
use backstop_types::AttentionSpan;

const VOCABULARY: usize = 50;
const HIDDEN: usize = 48;
const SHAPE: AttentionShape = AttentionShape {
    heads: 4,
    kv_heads: 2,
    head_dim: 16,
    scale: 0.25,
};
const NORM: Norm = Norm::Rms { epsilon: 1e-6 };
/// A token whose embedding is not a number.
const POISON: u32 = 49;

/// A layer of full attention with rotary positions and a dense block, one with a window and
/// experts.
struct Model {
    table: MatrixId,
    gain: VectorId,
    qkv: [MatrixId; 2],
    output: [MatrixId; 2],
    gate_up: MatrixId,
    down: MatrixId,
    gate: MatrixId,
    experts: ExpertsId,
}

impl Model {
    fn new(weights: &mut CpuWeights) -> Self {
        let mut seed = 0;
        let mut matrix = |weights: &mut CpuWeights, rows, columns| {
            seed += 1;
            weights.push_matrix(random_matrix(seed, rows, columns, Element::BF16))
        };
        let mut table = random_values(100, VOCABULARY * HIDDEN, 1.0);
        table[POISON as usize * HIDDEN..].fill(f32::NAN);
        let columns = ((SHAPE.heads + 2 * SHAPE.kv_heads) * SHAPE.head_dim) as usize;
        Self {
            table: weights.push_matrix(CpuMatrix::bf16_from_f32(VOCABULARY, HIDDEN, &table)),
            gain: weights.push_vector(random_values(101, HIDDEN, 1.0)),
            qkv: [0, 1].map(|_| matrix(weights, columns, HIDDEN)),
            output: [0, 1].map(|_| matrix(weights, HIDDEN, 64)),
            gate_up: matrix(weights, 2 * 40, HIDDEN),
            down: matrix(weights, HIDDEN, 40),
            gate: matrix(weights, 6, HIDDEN),
            experts: weights.push_experts(random_experts(7, [6, HIDDEN, 24], Element::F8E4M3)),
        }
    }

    fn forward<B: Backend>(&self, backend: &mut B) {
        let mut hidden = backend.embed(self.table);
        let rope = Rope {
            theta: 1e4,
            dimensions: SHAPE.head_dim,
            pairing: RopePairing::Interleaved,
            scaling: RopeScaling::None,
        };
        let input = backend.norm(&hidden, self.gain, NORM);
        let attended = self.attend(backend, &input, 0, Some(rope));
        let dense = backend.gated_mlp(&input, self.gate_up, self.down);
        let addends = [Some(attended), Some(dense)];
        let input = backend.add_norm(&mut hidden, addends, self.gain, NORM);
        let attended = self.attend(backend, &input, 1, None);
        let rule = RouterRule {
            top_k: 3,
            scoring: RouterScoring::Sigmoid,
            renormalise: false,
            factor: 1.0,
            groups: None,
        };
        let weights = RouterWeights {
            gate: self.gate,
            bias: None,
            correction: None,
        };
        let routing = backend.router(&input, weights, rule);
        let mixture = backend.experts(&input, routing, self.experts, GatedActivation::Swiglu);
        let sum = backend.add_scaled(attended, mixture, 0.5);
        let last = backend.add_norm(&mut hidden, [Some(sum), None], self.gain, NORM);
        backend.head(&last, self.table, 0.25);
    }

    fn attend<B: Backend>(
        &self,
        backend: &mut B,
        input: &B::Activation,
        layer: u32,
        rope: Option<Rope>,
    ) -> B::Activation {
        let place = KvLayer {
            group: layer,
            layer_in_group: 0,
        };
        let mut qkv = backend.linear(input, self.qkv[layer as usize], None);
        let transform = QueryKeyTransform { norm: None, rope };
        backend.rope_and_cache(&mut qkv, SHAPE, transform, place);
        let attended = backend.paged_attention(&qkv, SHAPE, None, place);
        backend.linear(&attended, self.output[layer as usize], None)
    }
}

struct Fixture {
    model: Model,
    backend: CpuBackend,
    tables: Vec<Vec<Vec<u32>>>,
}

impl Fixture {
    fn new(instructions: InstructionSet, element: Element) -> Self {
        let mut weights = CpuWeights::new();
        let model = Model::new(&mut weights);
        let group = |span| KvGroupLayout {
            span,
            num_blocks: 40,
            num_layers: 1,
            kv_heads: SHAPE.kv_heads,
            head_dim: SHAPE.head_dim,
            has_values: true,
        };
        let spans = [
            AttentionSpan::Full,
            AttentionSpan::Sliding { visible_keys: 11 },
        ];
        let kv = CpuKvCache::new(&spans.map(group), 8, element);
        let table = |slot: u32| (0..10).map(|index| (index * 7 + slot * 10) % 40).collect();
        let tables = vec![(0..4).map(table).collect(); 2];
        let backend = CpuBackend::with_instructions(Arc::new(weights), kv, instructions);
        Self {
            model,
            backend,
            tables,
        }
    }

    /// Bits of the logits of the last row of each `(slot, first position, tokens)`.
    fn step(&mut self, sequences: &[(u32, u32, &[u32])]) -> Vec<Vec<u32>> {
        let mut batch = Batch::new();
        for &(slot, first_position, tokens) in sequences {
            batch.push(slot, first_position, tokens, true);
        }
        self.backend.begin(&batch, &self.tables);
        self.model.forward(&mut self.backend);
        let bits = |index| {
            self.backend
                .logits_of(index)
                .iter()
                .map(|logit| logit.to_bits())
        };
        (0..sequences.len())
            .map(|index| bits(index).collect())
            .collect()
    }
}

fn tokens(seed: u32, count: u32) -> Vec<u32> {
    (0..count)
        .map(|index| (index * 11 + seed * 17) % 48)
        .collect()
}

/// Runs `check` with fixtures for every instruction set and format of the KV cache.
fn for_each_setting(check: impl Fn(&mut dyn FnMut() -> Fixture)) {
    for instructions in InstructionSet::available() {
        for element in [Element::F32, Element::BF16, Element::F8E4M3] {
            check(&mut || Fixture::new(instructions, element));
        }
    }
}

#[test]
fn a_sequence_alone_is_the_sequence_in_a_batch() {
    for_each_setting(|fixture| {
        let (a, b, c) = (tokens(1, 30), tokens(2, 17), tokens(3, 9));
        let mut alone = fixture();
        let expected = [
            alone.step(&[(0, 0, &a)]).remove(0),
            alone.step(&[(1, 0, &b)]).remove(0),
            alone.step(&[(2, 0, &c)]).remove(0),
        ];
        let mut together = fixture();
        together.step(&[(1, 0, &b[..16])]);
        let mixed = together.step(&[(2, 0, &c), (1, 16, &b[16..]), (0, 0, &a)]);
        assert!(
            mixed
                == [
                    expected[2].clone(),
                    expected[1].clone(),
                    expected[0].clone()
                ]
        );
    });
}

#[test]
fn chunks_of_a_prompt_do_not_matter() {
    for_each_setting(|fixture| {
        let prompt = tokens(4, 41);
        let expected = fixture().step(&[(3, 0, &prompt)]);
        for chunk in [1, 5, 8, 40] {
            let mut chunked = fixture();
            let mut last = Vec::new();
            for (index, part) in prompt.chunks(chunk).enumerate() {
                last = chunked.step(&[(3, (index * chunk) as u32, part)]);
            }
            assert!(last == expected, "chunks of {chunk}");
        }
    });
}

#[test]
fn a_faulty_sequence_does_not_spread() {
    for_each_setting(|fixture| {
        let healthy = tokens(5, 12);
        let expected = fixture().step(&[(0, 0, &healthy)]).remove(0);
        let mut poisoned = fixture();
        let logits = poisoned.step(&[(1, 0, &[3, POISON, 4]), (0, 0, &healthy)]);
        assert!(logits[0].iter().all(|&bits| f32::from_bits(bits).is_nan()));
        assert!(logits[1] == expected);
        // Nor does it outlast the blocks that it leaves behind.
        let reused = poisoned.step(&[(1, 0, &healthy)]).remove(0);
        assert!(reused == expected);
    });
}

#[test]
fn only_wanted_rows_have_logits() {
    let mut fixture = Fixture::new(InstructionSet::detect(), Element::BF16);
    let mut batch = Batch::new();
    batch.push(0, 0, &tokens(1, 7), false);
    fixture.backend.begin(&batch, &fixture.tables);
    fixture.model.forward(&mut fixture.backend);
    assert!(fixture.backend.logits().is_empty());
    assert_eq!(fixture.backend.rows(), 7);
}

#[test]
#[should_panic(expected = "does not cover positions up to 81")]
fn short_block_tables_are_refused() {
    let mut fixture = Fixture::new(InstructionSet::detect(), Element::BF16);
    fixture.step(&[(0, 80, &[1])]);
}
