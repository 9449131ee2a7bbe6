//! Rotary position embeddings (Su et al. 2021) over whole heads, halves rotated with one another.

use candle_core::{Device, Result, Tensor};

/// Cosines and sines of every position.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    /// `[positions, head width / 2]`, as `sine`.
    cosine: Tensor,
    sine: Tensor,
}

impl Rotary {
    /// Pair i of `width / 2` turns by `theta^(-2i / width)` a position. Angles are rounded to single precision as
    /// transformers does.
    pub(crate) fn new(theta: f64, width: usize, positions: usize, device: &Device) -> Result<Self> {
        let half = width / 2;
        let frequency = |pair: usize| {
            let exponent = (2 * pair) as f32 / width as f32;
            1.0 / theta.powf(f64::from(exponent)) as f32
        };
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let angles = (0..positions)
            .flat_map(|position| frequencies.iter().map(move |speed| position as f32 * speed));
        let (sine, cosine) = angles
            .map(|angle| {
                let (sine, cosine) = f64::from(angle).sin_cos();
                (sine as f32, cosine as f32)
            })
            .unzip();
        Ok(Self {
            cosine: Tensor::from_vec(cosine, (positions, half), device)?,
            sine: Tensor::from_vec(sine, (positions, half), device)?,
        })
    }

    /// Turns heads `[texts, heads, length, width]`, contiguous, of positions from 0 on.
    pub(crate) fn turn(&self, heads: &Tensor) -> Result<Tensor> {
        let length = heads.dim(2)?;
        let cosine = self.cosine.narrow(0, 0, length)?;
        let sine = self.sine.narrow(0, 0, length)?;
        candle_nn::rotary_emb::rope(heads, &cosine, &sine)
    }
}
