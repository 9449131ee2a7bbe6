//! Embeddings and relevance scores, by encoders over candle tensors.
//!
//! [`open_encoder`] reads a directory as sentence-transformers or transformers write it. `families` has one file for each
//! architecture, which says what its checkpoints call things and what is different about it; what they have in common
//! is `network`. `modules` reads what comes behind the network: pooling, projections, normalisation.
//!
//! Texts of a batch lie one behind another, without padding: all products of a token are of that token alone, and
//! attention is computed for texts of one length at a time. So no mask is needed, and nothing of a text depends on the
//! others but the order in which products add up.

mod activation;
mod attention;
mod batch;
mod device;
mod encoder;
mod error;
mod families;
mod fields;
mod modules;
mod network;
mod open;
mod pooling;
mod rotary;
mod settings;
mod tokenizer;
mod weights;

pub use device::EncoderDevice;
pub use error::EncoderError;
pub use open::open_encoder;
