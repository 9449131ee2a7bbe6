//! The encoder that the server asks: sorts texts into batches, computes them, and puts what comes out in order.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use backstop_types::{Encoder, EncoderFacts, EncoderInput, EncoderInputFault, TokenId};
use candle_core::{Result as TensorResult, Tensor};
use rayon::prelude::*;

use crate::activation::Activation;
use crate::batch::{Batch, batches};
use crate::modules::Modules;
use crate::network::Network;
use crate::tokenizer::TextTokenizer;

/// What comes behind the network.
pub(crate) enum Output {
    Vectors(Modules),
    /// The network's own head, and then this.
    Scores(Activation),
}

/// An encoder over tensors.
pub(crate) struct TensorEncoder {
    facts: EncoderFacts,
    tokenizer: TextTokenizer,
    network: Network,
    output: Output,
}

impl TensorEncoder {
    pub(crate) fn new(
        facts: EncoderFacts,
        tokenizer: TextTokenizer,
        network: Network,
        output: Output,
    ) -> Self {
        Self {
            facts,
            tokenizer,
            network,
            output,
        }
    }

    /// Rows in the order of `inputs`.
    fn rows(&self, inputs: &[EncoderInput]) -> Result<Vec<Vec<f32>>, String> {
        let length = |at: usize| inputs[at].tokens.len();
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(length(at)));
        let lengths: Vec<usize> = order.iter().map(|&at| length(at)).collect();
        // A GPU shares its work itself.
        let threads = match self.network.device().is_cpu() {
            true => rayon::current_num_threads(),
            false => 1,
        };
        let mut rows = Vec::with_capacity(inputs.len());
        for group in batches(&lengths, threads) {
            let compute = |range: std::ops::Range<usize>| {
                let texts = order[range].iter().map(|&at| &inputs[at]);
                self.batch(&Batch::new(texts.collect()))
            };
            let computed: Vec<TensorResult<Vec<Vec<f32>>>> = match threads {
                1 => group.into_iter().map(compute).collect(),
                _ => group.into_par_iter().map(compute).collect(),
            };
            for batch in computed {
                rows.extend(batch.map_err(|error| error.to_string())?);
            }
        }
        if !rows.iter().flatten().all(|number| number.is_finite()) {
            return Err("the model's result is not a finite number".to_owned());
        }
        let mut placed: Vec<(usize, Vec<f32>)> = order.into_iter().zip(rows).collect();
        placed.sort_by_key(|(at, _)| *at);
        Ok(placed.into_iter().map(|(_, row)| row).collect())
    }

    fn batch(&self, batch: &Batch<'_>) -> TensorResult<Vec<Vec<f32>>> {
        let hidden = self.network.hidden(batch)?;
        let rows: Tensor = match (&self.output, &self.network.head) {
            (Output::Vectors(modules), _) => modules.apply(&hidden, batch)?,
            (Output::Scores(activation), Some(head)) => {
                activation.apply(&head.apply(&hidden, batch)?)?
            }
            (Output::Scores(_), None) => candle_core::bail!("the network has no head"),
        };
        rows.to_vec2()
    }
}

impl Encoder for TensorEncoder {
    fn facts(&self) -> &EncoderFacts {
        &self.facts
    }

    fn tokens(&self, text: &str, truncate: bool) -> Result<EncoderInput, EncoderInputFault> {
        guarded(|| self.tokenizer.single(text, truncate))
            .unwrap_or(Err(EncoderInputFault::NotTokenized))
    }

    fn pair_tokens(
        &self,
        query: &str,
        document: &str,
        truncate: bool,
    ) -> Result<EncoderInput, EncoderInputFault> {
        guarded(|| self.tokenizer.pair(query, document, truncate))
            .unwrap_or(Err(EncoderInputFault::NotTokenized))
    }

    fn text(&self, tokens: &[TokenId]) -> String {
        guarded(|| self.tokenizer.text(tokens)).unwrap_or_default()
    }

    fn encode(&self, inputs: &[EncoderInput]) -> Result<Vec<Vec<f32>>, String> {
        guarded(|| self.rows(inputs)).unwrap_or_else(|| Err("the encoder panicked".to_owned()))
    }
}

impl fmt::Debug for TensorEncoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TensorEncoder")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// The result, or none after a panic in one of the libraries. Nothing that is changed outlives a call.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
