//! The operations, one file each: arguments and the CPU path.

pub mod add_scaled;
pub mod attention;
pub mod concatenate;
pub mod embed;
pub mod experts;
pub mod gated_mlp;
pub mod head;
pub mod head_norm;
pub mod indexer;
pub mod kv_write;
pub mod latent;
pub mod linear;
pub mod norm;
pub mod rope;
pub mod router;
pub mod sample;
