//! Latent attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1) in the latents' space: see
//! `latent_input` and `latent_output` of `Backend`.

use backstop_kernels::LatentShape;
use candle_core::{D, Result, Tensor};
use candle_nn::ops::rms_norm;

/// What lies between latents and heads, `[heads, content_dim + value_dim, rank]`.
pub(crate) fn weights_by_head(up: &Tensor, shape: LatentShape) -> Result<Tensor> {
    let rows = (shape.content_dim + shape.value_dim) as usize;
    up.reshape((shape.heads as usize, rows, shape.rank as usize))
}

/// Queries, key and value, `[rows, (heads + 2) * head_dim]`: what is rotated, then what is not.
pub(crate) fn input(
    queries: &Tensor,
    latents: &Tensor,
    weights: &Tensor,
    gain: (&Tensor, f32),
    shape: LatentShape,
) -> Result<Tensor> {
    let (rows, heads) = (latents.dim(0)?, shape.heads as usize);
    let (content, rope) = (shape.content_dim as usize, shape.rope_dim as usize);
    let rank = shape.rank as usize;
    let queries = queries.reshape((rows, heads, content + rope))?;
    // [heads, rows, content] * [heads, content, rank]
    let carried = queries
        .narrow(2, 0, content)?
        .transpose(0, 1)?
        .contiguous()?;
    let carried = carried.matmul(&weights.narrow(1, 0, content)?.contiguous()?)?;
    let rotated = queries.narrow(2, content, rope)?;
    let queries = Tensor::cat(&[rotated, carried.transpose(0, 1)?], 2)?;
    let queries = queries.reshape((rows, heads * (rope + rank)))?;

    let latent = latents.narrow(1, 0, rank)?.contiguous()?;
    let latent = rms_norm(&latent, gain.0, gain.1)?;
    let key = Tensor::cat(&[latents.narrow(1, rank, rope)?, latent], D::Minus1)?;
    Tensor::cat(&[queries, key.clone(), key], D::Minus1)
}

/// Values of the heads, `[rows, heads * value_dim]`, from weighted sums of latents, `[rows, heads * head_dim]`.
pub(crate) fn output(attended: &Tensor, weights: &Tensor, shape: LatentShape) -> Result<Tensor> {
    let (rows, heads) = (attended.dim(0)?, shape.heads as usize);
    let (content, value) = (shape.content_dim as usize, shape.value_dim as usize);
    let attended = attended.reshape((rows, heads, shape.head_dim() as usize))?;
    let latents = attended.narrow(2, shape.rope_dim as usize, shape.rank as usize)?;
    // [heads, rows, rank] * [heads, rank, value]
    let latents = latents.transpose(0, 1)?.contiguous()?;
    let weights = weights.narrow(1, content, value)?.contiguous()?;
    let values = latents.matmul(&weights.t()?)?;
    values.transpose(0, 1)?.reshape((rows, heads * value))
}
