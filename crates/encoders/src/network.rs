//! What the architectures have in common: embeddings, layers, and the head of a model that scores pairs.

use candle_core::{Device, Result, Tensor};
use candle_nn::{LayerNorm, Linear, Module};

use crate::activation::Activation;
use crate::attention::Attention;
use crate::batch::Batch;
use crate::pooling::{self, PoolingMode};

/// A whole network.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) embeddings: Embeddings,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Option<LayerNorm>,
    /// Only if it was asked for.
    pub(crate) head: Option<Head>,
}

/// Token ids to vectors.
#[derive(Debug)]
pub(crate) struct Embeddings {
    /// `[vocabulary, width]`
    pub(crate) words: Tensor,
    pub(crate) positions: Option<Positions>,
    /// `[kinds, width]`: of the first text of a pair, and of the second.
    pub(crate) segments: Option<Tensor>,
    pub(crate) norm: LayerNorm,
}

/// Learned vectors of positions.
#[derive(Debug)]
pub(crate) struct Positions {
    /// `[positions, width]`
    pub(crate) vectors: Tensor,
    pub(crate) rule: PositionRule,
}

/// Which of the vectors is a token's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PositionRule {
    /// From the first on.
    FromZero,
    /// RoBERTa's (`create_position_ids_from_input_ids` of transformers): behind that of the padding token, counting only
    /// tokens that are not the padding token, which itself always has its own.
    BehindPadding(u32),
}

impl PositionRule {
    fn rows(self, batch: &Batch<'_>) -> Vec<u32> {
        let Self::BehindPadding(padding) = self else {
            return batch.places();
        };
        let of = |tokens: &[u32]| {
            let mut last = padding;
            let mut row = |token: &u32| match *token == padding {
                true => padding,
                false => {
                    last += 1;
                    last
                }
            };
            tokens.iter().map(&mut row).collect::<Vec<u32>>()
        };
        batch
            .inputs
            .iter()
            .flat_map(|input| of(&input.tokens))
            .collect()
    }
}

/// Where a layer normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// What a part has added to.
    Behind,
    /// What a part reads.
    Before,
}

/// Attention, then a perceptron; each adds to what it has read.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) order: Order,
    pub(crate) attention: Attention,
    /// Only a first layer that normalises before has none.
    pub(crate) attention_norm: Option<LayerNorm>,
    pub(crate) mlp: Mlp,
    pub(crate) mlp_norm: LayerNorm,
}

/// A layer's perceptron.
#[derive(Debug)]
pub(crate) struct Mlp {
    /// If gated, to what is activated, and behind that to what it is multiplied with.
    pub(crate) up: Linear,
    pub(crate) activation: Activation,
    pub(crate) is_gated: bool,
    pub(crate) down: Linear,
}

/// Makes a score of a pair.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) pooling: PoolingMode,
    pub(crate) dense: Linear,
    pub(crate) activation: Activation,
    pub(crate) norm: Option<LayerNorm>,
    /// To one number.
    pub(crate) classifier: Linear,
}

impl Network {
    /// The last hidden states `[tokens, width]`.
    pub(crate) fn hidden(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let mut x = self.embeddings.apply(batch)?;
        for layer in &self.layers {
            x = layer.apply(&x, batch)?;
        }
        match &self.final_norm {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }

    /// Where it computes.
    pub(crate) fn device(&self) -> &Device {
        self.embeddings.words.device()
    }
}

impl Embeddings {
    fn apply(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let select = |table: &Tensor, rows: Vec<u32>| {
            let count = rows.len();
            table.index_select(&Tensor::from_vec(rows, count, table.device())?, 0)
        };
        let mut x = select(&self.words, batch.tokens())?;
        if let Some(segments) = &self.segments {
            x = (x + select(segments, batch.segments())?)?;
        }
        if let Some(positions) = &self.positions {
            x = (x + select(&positions.vectors, positions.rule.rows(batch))?)?;
        }
        self.norm.forward(&x)
    }
}

impl Layer {
    fn apply(&self, x: &Tensor, batch: &Batch<'_>) -> Result<Tensor> {
        let normed = |norm: Option<&LayerNorm>, x: &Tensor| match norm {
            Some(norm) => norm.forward(x),
            None => Ok(x.clone()),
        };
        let (attention_norm, mlp_norm) = (self.attention_norm.as_ref(), Some(&self.mlp_norm));
        match self.order {
            Order::Behind => {
                let x = normed(attention_norm, &(self.attention.apply(x, batch)? + x)?)?;
                normed(mlp_norm, &(self.mlp.apply(&x)? + &x)?)
            }
            Order::Before => {
                let read = normed(attention_norm, x)?;
                let x = (self.attention.apply(&read, batch)? + x)?;
                self.mlp.apply(&normed(mlp_norm, &x)?)? + &x
            }
        }
    }
}

impl Mlp {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let up = self.up.forward(x)?;
        if !self.is_gated {
            return self.down.forward(&self.activation.apply(&up)?);
        }
        let width = up.dim(1)? / 2;
        let activated = self
            .activation
            .apply(&up.narrow(1, 0, width)?.contiguous()?)?;
        self.down
            .forward(&(activated * up.narrow(1, width, width)?)?)
    }
}

impl Head {
    /// From hidden states to one number a text, `[texts, 1]`, before any sigmoid.
    pub(crate) fn apply(&self, hidden: &Tensor, batch: &Batch<'_>) -> Result<Tensor> {
        let pooled = pooling::pool(self.pooling, hidden, batch)?;
        let mut x = self.activation.apply(&self.dense.forward(&pooled)?)?;
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        self.classifier.forward(&x)
    }
}

#[cfg(test)]
mod tests {
    use backstop_types::EncoderInput;

    use super::*;

    #[test]
    fn padding_tokens_within_a_text_are_not_counted() {
        let input = EncoderInput {
            tokens: vec![0, 1, 7, 1, 9],
            second_segment: None,
        };
        let batch = Batch::new(vec![&input, &input]);
        let once = [2, 1, 3, 1, 4];
        let rows = PositionRule::BehindPadding(1).rows(&batch);
        assert_eq!(rows, [once, once].concat());
        assert_eq!(PositionRule::FromZero.rows(&batch)[4..6], [4, 0]);
    }
}
