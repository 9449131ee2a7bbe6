//! What of a checkpoint a model reads: which head, and which tensors are passed over.

use backstop_arch::{AnyModel, DraftHeadSpec, TiedHead, WeightMap};
use backstop_weights::{Checkpoint, Surplus, SurplusKind};

use crate::LoadFailure;

/// The model of a checkpoint.
#[derive(Debug)]
pub struct Fitted {
    /// As its configuration says, but for a head that is not the embedding against what that says.
    pub model: AnyModel,
    /// What whoever serves it should know of its files.
    pub warnings: Vec<String>,
}

/// The model that a checkpoint describes. The tensors that it does not read, and that are known to change nothing, are no
/// longer among the checkpoint's; whatever else does not fit, loading refuses.
pub fn fit(checkpoint: &mut Checkpoint) -> Result<Fitted, LoadFailure> {
    let mut model = backstop_arch::build(checkpoint.config())?;
    let mut surplus = Surplus::default();
    let mut warnings: Vec<String> = checkpoint.index_differences().into_iter().collect();
    if let Some(tied) = &model.spec().weights.tied {
        match Heads::of(checkpoint, tied)? {
            Heads::Embedding => {}
            Heads::Same => {
                checkpoint.pass_over_as(&tied.head, SurplusKind::HeadCopies, &mut surplus);
            }
            Heads::HeadAlone => checkpoint.rename(&tied.head, &tied.embedding),
            Heads::Different => {
                warnings.push(format!(
                    "tie_word_embeddings is true, but {} and {} are both there and differ: the head is computed with its \
                     own tensor, as Hugging Face transformers does",
                    tied.head, tied.embedding
                ));
                checkpoint.untie_embeddings();
                model = backstop_arch::build(checkpoint.config())?;
            }
        }
    }
    pass_over(checkpoint, &model.spec().weights, &mut surplus)?;
    if !surplus.is_empty() {
        warnings.push(surplus.to_string());
    }
    Ok(Fitted { model, warnings })
}

/// Does the same for a draft head. Returns what whoever serves it should know of its files.
pub fn fit_draft_head(
    checkpoint: &mut Checkpoint,
    head: &DraftHeadSpec,
) -> Result<Vec<String>, LoadFailure> {
    let mut surplus = Surplus::default();
    pass_over(checkpoint, &head.weights, &mut surplus)?;
    let surplus = (!surplus.is_empty()).then(|| surplus.to_string());
    let differences = checkpoint.index_differences();
    Ok(differences.into_iter().chain(surplus).collect())
}

/// Takes out of the checkpoint's tensors what these weights do not need and is known to change nothing.
fn pass_over(
    checkpoint: &mut Checkpoint,
    map: &WeightMap,
    surplus: &mut Surplus,
) -> Result<(), LoadFailure> {
    let scheme = checkpoint.quantization()?;
    let expected = map.expected(|name| checkpoint.tensor(name).is_some());
    let expected = scheme.expected(checkpoint, expected);
    checkpoint.pass_over(&expected, surplus);
    Ok(())
}

/// What a checkpoint has for a head that is tied to the embedding.
enum Heads {
    /// The embedding alone, as it should be.
    Embedding,
    /// A copy beside it.
    Same,
    /// Something else beside it.
    Different,
    /// The table under the name of the head.
    HeadAlone,
}

impl Heads {
    fn of(checkpoint: &Checkpoint, tied: &TiedHead) -> Result<Self, LoadFailure> {
        let scheme = checkpoint.quantization()?;
        let is_quantized = scheme.matrix(checkpoint, &tied.head, tied.shape).is_some();
        let [embedding, head] = [&tied.embedding, &tied.head].map(|name| checkpoint.tensor(name));
        Ok(match (embedding, head) {
            _ if is_quantized => Self::Different,
            (_, None) => Self::Embedding,
            (None, Some(_)) => Self::HeadAlone,
            (Some(_), Some(_)) if checkpoint.are_same(&tied.embedding, &tied.head)? => Self::Same,
            (Some(_), Some(_)) => Self::Different,
        })
    }
}
