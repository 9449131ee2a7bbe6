//! What tokenizers that come as lists of tokens have in common: tokens beside ordinary text.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// The tokens of a vocabulary, and which of them are not ordinary text.
pub(super) struct AddedTokens<'a> {
    /// By id.
    pub(super) tokens: &'a [String],
    /// Never text.
    pub(super) control: &'a [u32],
    /// Taken from a text before it is cut.
    pub(super) user_defined: &'a [u32],
}

impl<'a> AddedTokens<'a> {
    /// The id of each token, all of which must differ.
    pub(super) fn ids(&self) -> Result<HashMap<&'a str, usize>, String> {
        let mut ids = HashMap::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(earlier) = ids.insert(token.as_str(), id) {
                return Err(format!("tokens {earlier} and {id} are the same"));
            }
        }
        Ok(ids)
    }

    pub(super) fn text(&self, id: u32) -> Result<&'a str, String> {
        let token = self.tokens.get(id as usize).map(String::as_str);
        token.ok_or_else(|| format!("token {id} is not in the vocabulary"))
    }

    /// `added_tokens` of `tokenizer.json`.
    pub(super) fn to_json(&self) -> Result<Vec<Value>, String> {
        let control = self.control.iter().map(|&id| (id, true));
        let user_defined = self.user_defined.iter().map(|&id| (id, false));
        let mut added: Vec<(u32, bool)> = control.chain(user_defined).collect();
        added.sort_unstable();
        let entry = |(id, special): (u32, bool)| {
            Ok(json!({
                "id": id, "content": self.text(id)?, "special": special,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            }))
        };
        added.into_iter().map(entry).collect()
    }
}

/// The `post_processor` of `tokenizer.json` that lets texts begin with this token.
pub(super) fn beginning(id: u32, text: &str) -> Value {
    let begin = json!({"SpecialToken": {"id": text, "type_id": 0}});
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let mut special = Map::new();
    special.insert(
        text.to_owned(),
        json!({"id": text, "ids": [id], "tokens": [text]}),
    );
    json!({
        "type": "TemplateProcessing",
        "single": [begin, sequence("A", 0)],
        "pair": [begin, sequence("A", 0), sequence("B", 1)],
        "special_tokens": special,
    })
}
