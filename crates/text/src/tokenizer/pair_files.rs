//! Byte-level tokenizers in two files: `vocab.json`, ids by tokens, and `merges.txt`, a pair on each line.

use backstop_input::ValueAllowance;
use serde_json::{Map, Value};

use super::BytePairVocabulary;

/// Values and keys of `vocab.json`, two for each token.
const VALUES_MAX: usize = 4 << 20;

/// The rules by which text is cut, by the classes that transformers has for such files.
const CLASSES: [(&str, &str); 4] = [
    ("GPT2Tokenizer", "gpt-2"),
    ("GPTNeoXTokenizer", "olmo"),
    ("Qwen2Tokenizer", "qwen2"),
    ("CohereTokenizer", "command-r"),
];

/// The vocabulary, whose rule `tokenizer_config.json` knows.
pub(super) fn read(
    vocabulary: &[u8],
    merges: &[u8],
    config: &Map<String, Value>,
) -> Result<BytePairVocabulary, String> {
    if config.get("add_prefix_space") == Some(&Value::Bool(true)) {
        return Err("add_prefix_space is not supported for such files".to_owned());
    }
    let merges = std::str::from_utf8(merges).map_err(|_| "merges.txt is not UTF-8")?;
    let lines = merges.lines().map(str::trim_end);
    let pairs = lines.filter(|line| !line.is_empty() && !line.starts_with("#version"));
    let adds_bos = config.get("add_bos_token") == Some(&Value::Bool(true));
    let tokens = tokens(vocabulary)?;
    Ok(BytePairVocabulary {
        pre_tokenizer: pre_tokenizer(config)?.to_owned(),
        merges: pairs.map(str::to_owned).collect(),
        bos: begin(config, &tokens),
        adds_bos: Some(adds_bos),
        tokens,
        ..BytePairVocabulary::default()
    })
}

fn pre_tokenizer(config: &Map<String, Value>) -> Result<&'static str, String> {
    let class = config.get("tokenizer_class").and_then(Value::as_str);
    let class = class.ok_or("tokenizer_config.json does not say which tokenizer_class it is")?;
    let plain = class.strip_suffix("Fast").unwrap_or(class);
    let known = CLASSES.iter().find(|(name, _)| *name == plain);
    known.map(|(_, rule)| *rule).ok_or_else(|| {
        let shown: String = class.chars().take(64).collect();
        let names = CLASSES.map(|(name, _)| name).join(", ");
        format!("the tokenizer_class {shown:?} is not supported; supported are {names}")
    })
}

/// The tokens in the order of their ids.
fn tokens(vocabulary: &[u8]) -> Result<Vec<String>, String> {
    let ids = match ValueAllowance::new(VALUES_MAX).parse(vocabulary) {
        Ok(Value::Object(ids)) => ids,
        Ok(_) => return Err("it is not a JSON object".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let mut tokens = vec![None; ids.len()];
    for (token, id) in ids {
        let place = id
            .as_u64()
            .and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        match place {
            Some(place @ None) => *place = Some(token),
            _ => return Err("its ids are not 0, 1, 2 and so on".to_owned()),
        }
    }
    Ok(tokens.into_iter().flatten().collect())
}

/// The token that begins a text.
fn begin(config: &Map<String, Value>, tokens: &[String]) -> Option<u32> {
    let value = config.get("bos_token")?;
    let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
    let id = tokens.iter().position(|token| token == text)?;
    u32::try_from(id).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Tokenizer;

    const VOCABULARY: &[u8] =
        br#"{"a": 0, "b": 1, "ab": 2, "\u0120": 3, "1": 4, "2": 5, "12": 6, "<s>": 7}"#;
    const MERGES: &[u8] = b"#version: 0.2\na b\r\n1 2\n\n";

    fn ids(config: Value, text: &str) -> Result<Vec<u32>, String> {
        let pairs = read(VOCABULARY, MERGES, config.as_object().unwrap())?;
        let tokenizer = Tokenizer::from_byte_pairs(&pairs).map_err(|error| error.to_string())?;
        Ok(tokenizer.encode(text, true).unwrap())
    }

    #[test]
    fn the_class_says_how_text_is_cut() {
        let gpt_2 = json!({"tokenizer_class": "GPT2TokenizerFast"});
        assert_eq!(ids(gpt_2, "ab 12").unwrap(), [2, 3, 6]);
        let qwen = json!({"tokenizer_class": "Qwen2Tokenizer", "bos_token": {"content": "<s>"}});
        assert_eq!(ids(qwen, "ab12").unwrap(), [2, 4, 5]);
        let begins =
            json!({"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "add_bos_token": true});
        assert_eq!(ids(begins, "ab").unwrap(), [7, 2]);
    }

    #[test]
    fn what_would_not_be_exact_is_refused() {
        let error = |config: Value| ids(config, "").unwrap_err();
        assert!(error(json!({})).contains("tokenizer_class"));
        assert!(error(json!({"tokenizer_class": "XTokenizer"})).contains("XTokenizer"));
        let space = json!({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true});
        assert!(error(space).contains("add_prefix_space"));
        for damaged in [
            "[]",
            "{\"a\": 1}",
            "{\"a\": 0, \"b\": 0}",
            "{\"a\": -1}",
            "{",
        ] {
            let gpt_2 = json!({"tokenizer_class": "GPT2Tokenizer"});
            let read = read(damaged.as_bytes(), MERGES, gpt_2.as_object().unwrap());
            assert!(read.is_err(), "{damaged}");
        }
    }
}
