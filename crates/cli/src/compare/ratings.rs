//! What a device says of the tokens of a text.

use backstop_executor::Probe;
use backstop_kernels::Residual;
use backstop_types::TokenId;

/// Most likely tokens that are compared at each position.
const TOP: usize = 64;

/// A text as the first device rates it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ratings {
    /// The prompt, and what the device answered.
    pub(super) tokens: Vec<TokenId>,
    /// How many of `tokens` are the prompt.
    pub(super) prompt_len: usize,
    /// For each position, what may follow it, most likely first, with log-probabilities.
    pub(super) next: Vec<Vec<(TokenId, f32)>>,
    /// What the norms found in the prompt's first tokens.
    pub(super) residuals: Vec<Residual>,
}

/// Rates a prompt, and continues it with the most likely tokens.
pub(super) fn rate_and_continue(
    probe: &mut Probe,
    prompt: &[TokenId],
    max_tokens: u32,
) -> Result<Ratings, String> {
    let mut ratings = Ratings {
        tokens: prompt.to_vec(),
        prompt_len: prompt.len(),
        ..Ratings::default()
    };
    walk(probe, prompt, &mut ratings.residuals, |_, logits| {
        ratings.next.push(most_likely(logits));
    })?;
    for _ in 0..max_tokens {
        let last = ratings.next.last().and_then(|next| next.first());
        let (token, _) = *last.ok_or("a prompt without tokens")?;
        ratings.tokens.push(token);
        let observed = probe.extend(&[token])?;
        ratings.next.push(most_likely(&observed.logits));
    }
    Ok(ratings)
}

/// Computes a text from its beginning; `each` is told the number of each position and its logits.
pub(super) fn walk(
    probe: &mut Probe,
    tokens: &[TokenId],
    residuals: &mut Vec<Residual>,
    mut each: impl FnMut(usize, &[f32]),
) -> Result<(), String> {
    let (vocabulary, step) = (probe.vocabulary(), probe.tokens_max());
    probe.restart();
    for (chunk, part) in tokens.chunks(step).enumerate() {
        let observed = probe.extend(part)?;
        if chunk == 0 {
            *residuals = observed.residuals;
        }
        for (index, logits) in observed.logits.chunks_exact(vocabulary).enumerate() {
            if !logits.iter().all(|logit| logit.is_finite()) {
                let position = chunk * step + index;
                return Err(format!("logits at position {position} are not finite"));
            }
            each(chunk * step + index, logits);
        }
    }
    Ok(())
}

/// The most likely tokens with their log-probabilities; of equal ones the smaller first.
fn most_likely(logits: &[f32]) -> Vec<(TokenId, f32)> {
    let mut order: Vec<TokenId> = (0..logits.len() as u32).collect();
    let logit = |token: &TokenId| logits[*token as usize];
    let descending = |a: &TokenId, b: &TokenId| logit(b).total_cmp(&logit(a)).then(a.cmp(b));
    let count = TOP.min(order.len());
    if count < order.len() {
        order.select_nth_unstable_by(count, descending);
        order.truncate(count);
    }
    order.sort_unstable_by(descending);
    let normaliser = normaliser(logits);
    let likely = order
        .iter()
        .map(|token| (*token, logit(token) - normaliser));
    likely.collect()
}

/// What is taken from each logit to make it a log-probability.
pub(super) fn normaliser(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - largest).exp())
        .sum();
    largest + sum.ln() as f32
}

/// The most likely token.
pub(super) fn likeliest(logits: &[f32]) -> TokenId {
    let mut best = 0;
    for (token, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = token;
        }
    }
    best as TokenId
}
