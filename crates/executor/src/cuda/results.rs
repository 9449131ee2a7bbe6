//! Reads what came of a step's rows.

use std::sync::Arc;

use backstop_card::runner::{Outputs, Ticket};
use backstop_types::{SampleFault, SampledToken, TokenId};

use crate::device::{LogitRow, RowResult, StepFault, StepResults};

/// The results of a step on its way.
pub(super) struct CudaResults {
    pub(super) outputs: Arc<Outputs>,
    pub(super) ticket: Ticket,
    pub(super) rows: Vec<RowReading>,
}

/// How a row's result is read.
#[derive(Clone, Copy)]
pub(super) enum RowReading {
    /// The row was made to sample this token, which it does with any usable logits.
    Rating(TokenId),
    Sample {
        /// Whether its log-probability is wanted.
        logprobs: bool,
        /// Whether a grammar restricts it.
        restricted: bool,
    },
}

impl RowReading {
    pub(super) fn of(row: &LogitRow<'_>) -> Self {
        match row {
            LogitRow::Rating { token, .. } => Self::Rating(*token),
            LogitRow::Sample(row) => Self::Sample {
                logprobs: row.params.logprobs.is_some(),
                restricted: row.allowed.is_some(),
            },
        }
    }

    pub(super) fn wants_logprobs(&self) -> bool {
        match *self {
            Self::Rating(_) => true,
            Self::Sample { logprobs, .. } => logprobs,
        }
    }

    fn read(self, sampled: Option<SampledToken>) -> RowResult {
        match self {
            Self::Rating(token) => {
                let certain = sampled.filter(|sampled| sampled.id == token);
                certain.ok_or(SampleFault::NotANumber)
            }
            // The device does not say whether it was the mask or the logits.
            Self::Sample { restricted, .. } => sampled.ok_or(match restricted {
                true => SampleFault::Constraint,
                false => SampleFault::NotANumber,
            }),
        }
    }
}

impl StepResults for CudaResults {
    fn wait(&self) -> Result<Vec<RowResult>, StepFault> {
        let wants_logprobs = |row: usize| self.rows[row].wants_logprobs();
        let sampled = self.outputs.wait(self.ticket, wants_logprobs)?;
        let rows = self.rows.iter().zip(sampled);
        Ok(rows.map(|(row, sampled)| row.read(sampled)).collect())
    }
}
