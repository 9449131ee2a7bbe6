//! What a model needs of a backend: it computes once on one that only takes notes. So no architecture states anything
//! twice.

use backstop_kernels::backend::{
    AttentionShape, Backend, ExpertsId, GatedActivation, Indexer, KvLayer, LatentShape,
    LatentWeights, MatrixId, Norm, QueryKeyTransform, RouterRule, RouterWeights, VectorId,
};
use backstop_kernels::{Feature, Needs};

use crate::{AnyModel, Model, WeightMap};

/// Notes what is asked of it.
#[derive(Debug)]
pub(crate) struct NeedsRecorder<'a> {
    weights: &'a WeightMap,
    needs: Needs,
}

/// What the recorder knows of an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// The sum of the layers so far.
    Residual,
    /// Anything else.
    Inner,
}

/// What the model needs.
pub(crate) fn of(model: &AnyModel) -> Needs {
    let mut recorder = NeedsRecorder {
        weights: &model.spec().weights,
        needs: Needs::default(),
    };
    model.forward(&mut recorder);
    recorder.needs.features.sort_unstable();
    recorder.needs
}

impl NeedsRecorder<'_> {
    fn note(&mut self, feature: Feature, needed: bool) {
        if needed && !self.needs.features.contains(&feature) {
            self.needs.features.push(feature);
        }
    }

    fn note_norm(&mut self, input: Recorded, weight: VectorId) {
        self.note(Feature::InnerNorms, input != Recorded::Residual);
        let columns = self.weights.vectors[weight.0 as usize].elements();
        raise(&mut self.needs.sizes.norm_columns, columns);
    }

    fn note_outputs(&mut self, outputs: usize) {
        self.note(Feature::OddOutputs, !outputs.is_multiple_of(2));
    }

    fn rows(&self, matrix: MatrixId) -> usize {
        self.weights.matrices[matrix.0 as usize].rows()
    }
}

fn raise(largest: &mut usize, size: usize) {
    *largest = size.max(*largest);
}

impl Backend for NeedsRecorder<'_> {
    type Activation = Recorded;
    type Routing = ();
    type Selection = ();

    fn embed(&mut self, _: MatrixId) -> Recorded {
        Recorded::Residual
    }

    fn norm(&mut self, hidden: &Recorded, weight: VectorId, _: Norm) -> Recorded {
        self.note_norm(*hidden, weight);
        Recorded::Inner
    }

    fn add_norm(
        &mut self,
        hidden: &mut Recorded,
        _: [Option<Recorded>; 2],
        weight: VectorId,
        _: Norm,
    ) -> Recorded {
        self.note_norm(*hidden, weight);
        Recorded::Inner
    }

    fn linear(&mut self, _: &Recorded, weight: MatrixId, _: Option<VectorId>) -> Recorded {
        self.note_outputs(self.rows(weight));
        Recorded::Inner
    }

    fn rope_and_cache(
        &mut self,
        _: &mut Recorded,
        shape: AttentionShape,
        transform: QueryKeyTransform,
        _: KvLayer,
    ) {
        let rotated = transform
            .rope
            .map_or(shape.head_dim, |rope| rope.dimensions);
        self.note(Feature::PartialRotation, rotated != shape.head_dim);
        if !self.needs.attention.contains(&shape) {
            self.needs.attention.push(shape);
        }
    }

    fn paged_attention(
        &mut self,
        _: &Recorded,
        _: AttentionShape,
        sinks: Option<VectorId>,
        _: KvLayer,
    ) -> Recorded {
        self.note(Feature::AttentionSinks, sinks.is_some());
        Recorded::Inner
    }

    fn router(&mut self, _: &Recorded, weights: RouterWeights, rule: RouterRule) {
        self.note(Feature::RouterBias, weights.bias.is_some());
        self.note(Feature::RouterCorrection, weights.correction.is_some());
        self.note(Feature::RouterGroups, rule.groups.is_some());
        self.note(Feature::RouterFactor, rule.factor != 1.0);
        let experts = self.rows(weights.gate);
        raise(&mut self.needs.sizes.experts, experts);
        raise(&mut self.needs.sizes.experts_per_token, rule.top_k as usize);
    }

    fn experts(
        &mut self,
        _: &Recorded,
        (): (),
        experts: ExpertsId,
        activation: GatedActivation,
    ) -> Recorded {
        let clamped = activation != GatedActivation::Swiglu;
        self.note(Feature::ClampedExperts, clamped);
        let experts = &self.weights.experts[experts.0 as usize];
        let (width, hidden) = (experts.width, experts.hidden);
        self.note_outputs(width);
        self.note_outputs(hidden);
        Recorded::Inner
    }

    fn gated_mlp(&mut self, _: &Recorded, gate_up: MatrixId, down: MatrixId) -> Recorded {
        self.note_outputs(self.rows(gate_up) / 2);
        self.note_outputs(self.rows(down));
        Recorded::Inner
    }

    fn add_scaled(&mut self, a: Recorded, _: Recorded, _: f32) -> Recorded {
        a
    }

    fn head(&mut self, _: &Recorded, head: MatrixId, _: f32) {
        let vocabulary = self.rows(head);
        raise(&mut self.needs.sizes.vocabulary, vocabulary);
    }

    fn select_keys(&mut self, _: Recorded, _: &Recorded, _: &Recorded, _: Indexer, _: KvLayer) {
        self.note(Feature::SparseAttention, true);
    }

    fn selected_attention(
        &mut self,
        _: &Recorded,
        _: AttentionShape,
        (): &(),
        _: KvLayer,
    ) -> Recorded {
        Recorded::Inner
    }

    fn latent_input(
        &mut self,
        _: &Recorded,
        _: &Recorded,
        _: LatentWeights,
        _: LatentShape,
    ) -> Recorded {
        self.note(Feature::LatentAttention, true);
        Recorded::Inner
    }

    fn latent_output(&mut self, _: &Recorded, _: LatentWeights, _: LatentShape) -> Recorded {
        Recorded::Inner
    }
}
