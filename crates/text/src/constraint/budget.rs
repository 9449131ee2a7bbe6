//! Reasoning of limited length: as many tokens as a request allows, and then the tags that close it.
//!
//! A budget is a constraint like a grammar, and may hold one: while the model reasons within its
//! budget, and after reasoning is closed, the grammar alone says what may come, or nothing does.
//! All that it knows follows from the tokens of the answer, so that it is the same after a
//! preemption or a failed step.

use std::collections::VecDeque;
use std::sync::Arc;

use backstop_types::{Constraint, ConstraintFault, ConstraintMatcher, SharedConstraint, TokenId};

use super::shape::Opening;
use crate::format::{OutputParser, ParserOptions};
use crate::{ChatFormat, IncrementalDetokenizer, Tokenizer};

/// Bytes of the answer in which the beginning of a tag is looked for.
const TAIL_BYTES: usize = 64;

/// How long an answer may reason.
pub struct ReasoningBudget {
    /// Tokens of reasoning.
    pub tokens: u32,
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// How the model marks reasoning.
    pub format: &'static ChatFormat,
    /// Where in its turn the answer begins.
    pub opening: Opening,
    /// The grammar that the answer follows, if it follows any.
    pub grammar: Option<SharedConstraint>,
}

impl std::fmt::Debug for ReasoningBudget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ReasoningBudget")
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl ReasoningBudget {
    /// The constraint that keeps to the budget; the grammar alone where there is no reasoning.
    pub fn into_constraint(self) -> Option<SharedConstraint> {
        match (self.format.reasoning_end(), self.opening) {
            (None, _) | (_, Opening::Text) => self.grammar,
            (Some(_), _) => Some(SharedConstraint(Arc::new(self))),
        }
    }

    /// The tokens of text with tags in it. White space that the tokenizer would not write like that
    /// is left out.
    fn encode(&self, text: &str) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let next_tag = |tag: &&'static str| {
                let token = self.tokenizer.token_to_id(tag)?;
                Some((rest.find(*tag)?, *tag, token))
            };
            let tag = self
                .format
                .tags()
                .iter()
                .filter_map(next_tag)
                .min_by_key(|found| found.0);
            let (before, token, after) = match tag {
                Some((start, tag, token)) => {
                    (&rest[..start], Some(token), &rest[start + tag.len()..])
                }
                None => (rest, None, ""),
            };
            tokens.extend(self.encode_text(before));
            tokens.extend(token);
            rest = after;
        }
        tokens
    }

    fn encode_text(&self, text: &str) -> Vec<TokenId> {
        let tokens = self.tokenizer.encode(text, false).unwrap_or_default();
        let bytes = tokens
            .iter()
            .filter_map(|token| self.tokenizer.token_bytes(*token));
        let is_exact = bytes.flatten().copied().eq(text.bytes());
        match is_exact || !text.trim().is_empty() {
            true => tokens,
            false => Vec::new(),
        }
    }

    /// What closes reasoning after a text with this end, which may have begun to do so.
    fn closing(&self, tail: &str) -> Vec<TokenId> {
        let end = self.format.reasoning_end().unwrap_or_default();
        let closer = self.format.reasoning_closer().unwrap_or_default();
        let is_text = !closer.is_empty() && self.tokenizer.token_to_id(closer).is_none();
        let lengths = (1..closer.len()).rev().filter(|_| is_text);
        let mut begun = lengths.filter(|length| closer.is_char_boundary(*length));
        if let (Some(begun), Some(start)) = (
            begun.find(|length| tail.ends_with(&closer[..*length])),
            end.find(closer),
        ) {
            return self.encode(&end[start + begun..]);
        }
        let end = match tail.ends_with('\n') {
            true => end.trim_start_matches('\n'),
            false => end,
        };
        self.encode(end)
    }

    /// The token by which reasoning would begin, with those before it: the last one that is no tag,
    /// for tags begin other things too, or else the last.
    fn opener(&self) -> Option<(Vec<TokenId>, TokenId)> {
        let mut tokens = self.encode(self.format.reasoning_opener()?);
        let tags = self.format.tag_tokens(&self.tokenizer);
        let last = tokens.iter().rposition(|token| !tags.contains(token));
        tokens.truncate(last.map_or(tokens.len(), |last| last + 1));
        let last = tokens.pop()?;
        Some((tokens, last))
    }
}

/// The budget is cloned with all that it holds for each matcher: three references and two numbers.
impl Constraint for ReasoningBudget {
    fn matcher(&self) -> Box<dyn ConstraintMatcher> {
        let budget = Self {
            tokenizer: Arc::clone(&self.tokenizer),
            grammar: self.grammar.clone(),
            ..*self
        };
        let mut matcher = BudgetMatcher {
            grammar: self.grammar.as_ref().map(|grammar| grammar.0.matcher()),
            reader: Reader::new(self),
            left: self.tokens,
            closing: VecDeque::new(),
            opener: self.opener(),
            recent: VecDeque::new(),
            budget,
        };
        matcher.close_if_spent();
        Box::new(matcher)
    }
}

struct BudgetMatcher {
    budget: ReasoningBudget,
    grammar: Option<Box<dyn ConstraintMatcher>>,
    reader: Reader,
    /// Tokens of reasoning that may still come.
    left: u32,
    /// Tokens that must come next.
    closing: VecDeque<TokenId>,
    /// The token that would begin reasoning behind these others.
    opener: Option<(Vec<TokenId>, TokenId)>,
    /// As many tokens of the answer as stand before the opener's last.
    recent: VecDeque<TokenId>,
}

impl BudgetMatcher {
    /// Whole characters alone are cut off from what follows.
    fn close_if_spent(&mut self) {
        let reader = &self.reader;
        if self.left == 0
            && self.closing.is_empty()
            && reader.parser.in_reasoning()
            && !reader.detokenizer.is_within_character()
        {
            self.closing = self.budget.closing(&reader.tail).into();
        }
    }

    /// The token that would begin reasoning now.
    fn reopening(&self) -> Option<TokenId> {
        let (before, token) = self.opener.as_ref()?;
        let would =
            self.left == 0 && self.recent.iter().eq(before) && !self.reader.parser.in_reasoning();
        would.then_some(*token)
    }
}

impl ConstraintMatcher for BudgetMatcher {
    fn advance(&mut self, token: TokenId) -> Result<(), ConstraintFault> {
        if let Some(grammar) = &mut self.grammar {
            grammar.advance(token)?;
        }
        if self.closing.pop_front().is_some_and(|due| due != token) {
            self.closing.clear();
        }
        if self.reader.parser.in_reasoning() {
            self.left = self.left.saturating_sub(1);
        }
        self.reader.push(token);
        if let Some((before, _)) = &self.opener {
            self.recent.push_back(token);
            if self.recent.len() > before.len() {
                self.recent.pop_front();
            }
        }
        self.close_if_spent();
        Ok(())
    }

    fn fill_mask(&mut self, mask: &mut [u32]) -> Result<(), ConstraintFault> {
        match &mut self.grammar {
            Some(grammar) => grammar.fill_mask(mask)?,
            None => mask.fill(u32::MAX),
        }
        let place = |token: TokenId| (token as usize / 32, 1_u32 << (token % 32));
        if let Some(due) = self.closing.front() {
            let (word, bit) = place(*due);
            // A grammar that refuses it has reasoning closed otherwise.
            if mask.get(word).is_some_and(|word| word & bit != 0) {
                mask.fill(0);
                mask[word] = bit;
            } else {
                self.closing.clear();
            }
        } else if let Some(token) = self.reopening() {
            let (word, bit) = place(token);
            let others = mask.iter().enumerate().any(|(at, found)| {
                let found = if at == word { found & !bit } else { *found };
                found != 0
            });
            if let Some(word) = mask.get_mut(word).filter(|_| others) {
                *word &= !bit;
            }
        }
        Ok(())
    }
}

/// Reads an answer as far as to know whether it reasons.
struct Reader {
    tokenizer: Arc<Tokenizer>,
    detokenizer: IncrementalDetokenizer,
    parser: Box<dyn OutputParser>,
    /// The parser's tags.
    tags: Vec<TokenId>,
    /// The end of the text since the last of them.
    tail: String,
}

impl Reader {
    fn new(budget: &ReasoningBudget) -> Self {
        let options = ParserOptions {
            opening: budget.opening,
            parse_tools: true,
            ..ParserOptions::default()
        };
        Self {
            tokenizer: Arc::clone(&budget.tokenizer),
            detokenizer: IncrementalDetokenizer::new(true),
            parser: budget.format.parser(options),
            tags: budget.format.tag_tokens(&budget.tokenizer),
            tail: String::new(),
        }
    }

    fn push(&mut self, token: TokenId) {
        if self.tags.contains(&token) {
            let incomplete = self.detokenizer.finish();
            self.parser.push(&incomplete);
            self.parser.push(&self.tokenizer.token_text(token));
            self.tail.clear();
            return;
        }
        let text = self.detokenizer.push(&self.tokenizer, token);
        self.parser.push(&text);
        self.tail.push_str(&text);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..self.tail.floor_char_boundary(surplus));
    }
}
