//! Rotary embeddings of heads.

use backstop_kernels::{Rope, RopePairing};
use candle_core::{D, Device, Result, Tensor};
use candle_nn::rotary_emb;

/// The angles of a batch's positions for one embedding.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) rope: Rope,
    /// `[rows, dimensions / 2]`.
    cosines: Tensor,
    sines: Tensor,
}

impl Rotation {
    pub(crate) fn new(positions: &[u32], rope: Rope, device: &Device) -> Result<Self> {
        let frequencies = rope.inverse_frequencies();
        let angles = positions.iter().flat_map(|&position| {
            let position = position as f32;
            frequencies
                .iter()
                .map(move |frequency| position * frequency)
        });
        let angles: Vec<f32> = angles.collect();
        let magnitude = rope.magnitude();
        let table = |function: fn(f32) -> f32| {
            let values = angles.iter().map(|&angle| function(angle) * magnitude);
            let values: Vec<f32> = values.collect();
            Tensor::from_vec(values, (positions.len(), frequencies.len()), device)
        };
        Ok(Self {
            cosines: table(f32::cos)?,
            sines: table(f32::sin)?,
            rope,
        })
    }

    /// Rotates the first dimensions of heads `[rows, heads, head_dim]`.
    pub(crate) fn rotate(&self, heads: &Tensor) -> Result<Tensor> {
        let (dimensions, head_dim) = (self.rope.dimensions as usize, heads.dim(D::Minus1)?);
        let first = heads.narrow(D::Minus1, 0, dimensions)?;
        // Candle's order is batch, heads, rows.
        let first = first.transpose(0, 1)?.unsqueeze(0)?.contiguous()?;
        let rotated = match self.rope.pairing {
            RopePairing::Interleaved => rotary_emb::rope_i(&first, &self.cosines, &self.sines)?,
            RopePairing::Halves => rotary_emb::rope(&first, &self.cosines, &self.sines)?,
        };
        let rotated = rotated.squeeze(0)?.transpose(0, 1)?;
        if dimensions == head_dim {
            return rotated.contiguous();
        }
        let rest = heads.narrow(D::Minus1, dimensions, head_dim - dimensions)?;
        Tensor::cat(&[rotated, rest], D::Minus1)
    }
}
