//! How requests are written down.

use rand::Rng;
use serde_json::{Map, Value, json};

use crate::random::{generator, text_tokens};
use crate::workload::{Content, Segment, Session};

/// Common and short: most vocabularies have each of them as one token, with the space before it.
const WORDS: &str = "the of and to in is that it was for on are as with his they at be this from have or by one had not but \
    what all were when we there can an your which their said if do will each about how up out them then she many some so \
    these would other into has more her two like him see time could no make than first been its who now people my made over \
    did down only way find use may water long little very after words called just where most know get through back much \
    before go good new write our used me man too any day same right look think also around another came come work three \
    word must because does part even place well such here take why things help put years different away again off went old \
    number great tell men say small every found still between name should home big give air line set own under read last \
    never us left end along while might next sound below saw something thought both few those always looked show large often \
    together asked house don world going want school important until form food keep children feet land side without boy once \
    animals life enough took sometimes four head above kind began almost live page got earth need far hand high year mother \
    light parts country father let night following picture being study second eyes soon times story boys since white days \
    ever paper hard near sentence better best across during today others however sure means knew try told young miles sun \
    ways thing whole hear example heard several change answer room sea against top turned learn point city play toward five";

/// What made-up texts consist of.
pub(crate) fn words() -> Vec<&'static str> {
    WORDS.split_whitespace().collect()
}

/// Which of OpenAI's endpoints is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `/v1/completions`, as vLLM's `openai`.
    Completions,
    /// `/v1/chat/completions`, as vLLM's `openai-chat`.
    Chat,
}

impl Backend {
    /// vLLM's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completions => "openai",
            Self::Chat => "openai-chat",
        }
    }

    /// Where it is, as a rule.
    pub fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

/// What made-up prompts consist of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prompts {
    /// Token ids, whose number is exact.
    TokenIds,
    /// English words.
    Words {
        /// So many make a token.
        per_token: f64,
    },
}

/// How requests are written down.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Whom it is for.
    pub backend: Backend,
    /// The model's name, if one is sent.
    pub model: Option<String>,
    /// What made-up prompts consist of.
    pub prompts: Prompts,
    /// Names of texts mean texts together with this.
    pub seed: u64,
    /// Whether answers go on behind their end, up to their longest length.
    pub ignore_eos: bool,
    /// Further fields of every request.
    pub extra: Map<String, Value>,
}

impl Wire {
    /// The body of a turn's request, after these answers to the turns before.
    pub fn body(&self, session: &Session, turn: usize, answers: &[String]) -> Vec<u8> {
        let mut body = Map::new();
        if let Some(model) = &self.model {
            body.insert("model".into(), json!(model));
        }
        let (content, length) = match self.backend {
            Backend::Chat => ("messages", "max_completion_tokens"),
            Backend::Completions => ("prompt", "max_tokens"),
        };
        let said = match self.backend {
            Backend::Chat => self.messages(session, turn, answers),
            Backend::Completions => self.prompt(&session.turns[turn].content),
        };
        body.insert(content.into(), said);
        body.insert(length.into(), json!(session.turns[turn].output_tokens));
        body.insert("stream".into(), json!(true));
        body.insert("stream_options".into(), json!({"include_usage": true}));
        if self.ignore_eos {
            body.insert("ignore_eos".into(), json!(true));
        }
        for (name, value) in self.extra.iter().chain(&session.turns[turn].fields) {
            body.insert(name.clone(), value.clone());
        }
        Value::Object(body).to_string().into_bytes()
    }

    fn messages(&self, session: &Session, turn: usize, answers: &[String]) -> Value {
        let mut messages = Vec::new();
        for (number, one) in session.turns.iter().enumerate().take(turn + 1) {
            match &one.content {
                Content::Messages(given) => messages.clone_from(given),
                Content::Text(text) => messages.push(json!({"role": "user", "content": text})),
                Content::Segments(segments) => {
                    messages.push(json!({"role": "user", "content": self.words(segments)}));
                }
            }
            if let Some(answer) = answers.get(number).filter(|_| number < turn) {
                messages.push(json!({"role": "assistant", "content": answer}));
            }
        }
        Value::Array(messages)
    }

    fn prompt(&self, content: &Content) -> Value {
        match (content, self.prompts) {
            (Content::Text(text), _) => json!(text),
            (Content::Messages(given), _) => json!(given),
            (Content::Segments(segments), Prompts::Words { .. }) => json!(self.words(segments)),
            (Content::Segments(segments), Prompts::TokenIds) => {
                let tokens = segments
                    .iter()
                    .flat_map(|one| text_tokens(self.seed, one.stream, one.tokens as usize));
                Value::Array(tokens.map(Value::from).collect())
            }
        }
    }

    fn words(&self, segments: &[Segment]) -> String {
        let known = words();
        let per_token = match self.prompts {
            Prompts::Words { per_token } => per_token,
            Prompts::TokenIds => 1.0,
        };
        let mut text = String::new();
        for segment in segments {
            let mut random = generator(self.seed, segment.stream);
            let count = (f64::from(segment.tokens) * per_token).round().max(1.0) as usize;
            for _ in 0..count {
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(known[random.random_range(0..known.len())]);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Lengths, Turn, conversations, random};

    fn wire(backend: Backend, prompts: Prompts) -> Wire {
        Wire {
            backend,
            model: Some("m".into()),
            prompts,
            seed: 1,
            ignore_eos: true,
            extra: Map::from_iter([("temperature".to_owned(), json!(0))]),
        }
    }

    const LENGTHS: Lengths = Lengths {
        input: 40,
        output: 8,
        range_ratio: 0.0,
    };

    fn body(wire: &Wire, session: &Session, turn: usize, answers: &[String]) -> Value {
        serde_json::from_slice(&wire.body(session, turn, answers)).unwrap()
    }

    #[test]
    fn a_completion_is_asked_for_with_as_many_tokens_as_said() {
        let sessions = random(2, LENGTHS, 0, 1, 0);
        let wire = wire(Backend::Completions, Prompts::TokenIds);
        let one = body(&wire, &sessions[0], 0, &[]);
        assert_eq!(one["prompt"].as_array().unwrap().len(), 40);
        assert_eq!(
            (&one["max_tokens"], &one["temperature"]),
            (&json!(8), &json!(0))
        );
        assert_eq!(one["stream_options"]["include_usage"], true);
        assert_ne!(
            one["prompt"][0],
            body(&wire, &sessions[1], 0, &[])["prompt"][0]
        );
    }

    #[test]
    fn words_are_as_many_as_calibration_says() {
        let sessions = random(1, LENGTHS, 0, 1, 0);
        let wire = wire(Backend::Chat, Prompts::Words { per_token: 0.5 });
        let one = body(&wire, &sessions[0], 0, &[]);
        let text = one["messages"][0]["content"].as_str().unwrap();
        assert_eq!(text.split(' ').count(), 20);
        assert_eq!(one["max_completion_tokens"], 8);
        assert!(one.get("max_tokens").is_none());
    }

    #[test]
    fn a_conversation_has_what_was_said_and_answered() {
        let sessions = conversations(3, 3, LENGTHS, 1, 0);
        let wire = wire(Backend::Chat, Prompts::Words { per_token: 1.0 });
        let answers = ["first".to_owned(), "second".to_owned()];
        let third = body(&wire, &sessions[0], 2, &answers);
        let roles: Vec<&str> = third["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["role"].as_str().unwrap())
            .collect();
        assert_eq!(roles, ["user", "assistant", "user", "assistant", "user"]);
        assert_eq!(third["messages"][3]["content"], "second");
        let first = body(&wire, &sessions[0], 0, &[]);
        assert_eq!(first["messages"][0], third["messages"][0]);
    }

    #[test]
    fn given_messages_are_sent_as_they_are() {
        let given = vec![
            json!({"role": "system", "content": "s"}),
            json!({"role": "user", "content": "u"}),
        ];
        let session = Session {
            turns: vec![Turn::new(Content::Messages(given.clone()), 4)],
        };
        let one = body(&wire(Backend::Chat, Prompts::TokenIds), &session, 0, &[]);
        assert_eq!(one["messages"], json!(given));
    }
}
