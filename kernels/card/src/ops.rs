//! The operations, one file each: checked arguments and the launch.

pub mod add_scaled;
pub mod attention;
pub mod embed;
pub mod experts;
pub mod gated_mlp;
pub mod head;
pub mod kv_write;
pub mod linear;
pub mod norm;
pub mod rope;
pub mod router;
pub mod sample;
