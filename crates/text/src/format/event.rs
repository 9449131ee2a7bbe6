//! What parsers report, and the whole message that the reports add up to.

/// One thing found in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedEvent {
    /// More of the model's reasoning.
    ReasoningDelta(String),
    /// More of the answer's text.
    ContentDelta(String),
    /// A tool call begins.
    ToolCallStart {
        /// Number of the call within the answer, from 0.
        index: usize,
        /// Id of the call, made up by the parser: the model's own ids repeat in every answer. The
        /// exception are families whose templates count on the model's own.
        id: String,
        /// Name of the tool.
        name: String,
    },
    /// More of the arguments of a tool call: a piece of the JSON text as the model wrote it.
    ToolCallArgumentsDelta {
        /// Number of the call within the answer.
        index: usize,
        /// The piece of JSON text.
        delta: String,
    },
}

/// Appends an event; deltas of the same kind become one.
pub(crate) fn push_merged(events: &mut Vec<ParsedEvent>, event: ParsedEvent) {
    use ParsedEvent::{ContentDelta, ReasoningDelta, ToolCallArgumentsDelta};
    match (events.last_mut(), &event) {
        (_, ContentDelta(text) | ReasoningDelta(text)) if text.is_empty() => {}
        (_, ToolCallArgumentsDelta { delta, .. }) if delta.is_empty() => {}
        (Some(ContentDelta(last)), ContentDelta(text))
        | (Some(ReasoningDelta(last)), ReasoningDelta(text)) => last.push_str(text),
        (
            Some(ToolCallArgumentsDelta {
                index: last_index,
                delta: last,
            }),
            ToolCallArgumentsDelta { index, delta },
        ) if last_index == index => last.push_str(delta),
        _ => events.push(event),
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedMessage {
    /// The model's reasoning.
    pub reasoning: String,
    /// The answer's text.
    pub content: String,
    /// The tool calls, in order.
    pub tool_calls: Vec<ParsedToolCall>,
}

/// A whole tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedToolCall {
    /// Id of the call.
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// The arguments as JSON text; incomplete if the answer was cut off.
    pub arguments: String,
}

impl ParsedMessage {
    /// Adds one event to the message.
    pub fn apply(&mut self, event: ParsedEvent) {
        match event {
            ParsedEvent::ReasoningDelta(text) => self.reasoning.push_str(&text),
            ParsedEvent::ContentDelta(text) => self.content.push_str(&text),
            ParsedEvent::ToolCallStart { id, name, .. } => {
                self.tool_calls.push(ParsedToolCall {
                    id,
                    name,
                    arguments: String::new(),
                });
            }
            ParsedEvent::ToolCallArgumentsDelta { index, delta } => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.arguments.push_str(&delta);
                }
            }
        }
    }
}

impl FromIterator<ParsedEvent> for ParsedMessage {
    fn from_iter<I: IntoIterator<Item = ParsedEvent>>(events: I) -> Self {
        let mut message = Self::default();
        events.into_iter().for_each(|event| message.apply(event));
        message
    }
}

/// Makes the ids of one answer's tool calls out of a seed: the same seed gives the same ids.
#[derive(Clone, Debug, Default)]
pub struct ToolCallIds {
    seed: u128,
}

impl ToolCallIds {
    /// Ids are as unique as the seed; a server takes a random one per answer.
    pub fn from_seed(seed: u128) -> Self {
        Self { seed }
    }

    /// Ids of nine letters and digits, which is what templates of Mistral's models insist on.
    pub(super) fn short_id(&self, index: usize) -> String {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut number = self.number(index);
        let mut digit = || {
            let digit = DIGITS[(number % 62) as usize];
            number /= 62;
            char::from(digit)
        };
        (0..9).map(|_| digit()).collect()
    }

    /// The id of the call with this number.
    pub fn id(&self, index: usize) -> String {
        format!("chatcmpl-tool-{:032x}", self.number(index))
    }

    fn number(&self, index: usize) -> u128 {
        // An odd step walks through all 128-bit numbers, so ids of one answer never repeat.
        const STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        self.seed.wrapping_add(STEP.wrapping_mul(index as u128))
    }
}

#[cfg(test)]
mod tests {
    use super::{ParsedEvent, ParsedMessage, ToolCallIds, push_merged};

    #[test]
    fn neighbours_of_a_kind_are_merged_and_empty_ones_dropped() {
        let mut events = Vec::new();
        for text in ["a", "", "b"] {
            push_merged(&mut events, ParsedEvent::ContentDelta(text.to_owned()));
        }
        push_merged(&mut events, ParsedEvent::ReasoningDelta("r".to_owned()));
        assert_eq!(
            events,
            [
                ParsedEvent::ContentDelta("ab".into()),
                ParsedEvent::ReasoningDelta("r".into())
            ]
        );
    }

    #[test]
    fn arguments_without_a_call_are_ignored() {
        let event = ParsedEvent::ToolCallArgumentsDelta {
            index: 3,
            delta: "{}".into(),
        };
        assert_eq!(ParsedMessage::from_iter([event]), ParsedMessage::default());
    }

    #[test]
    fn ids_are_stable_and_differ() {
        let ids = ToolCallIds::from_seed(7);
        assert_eq!(ids.id(0), "chatcmpl-tool-00000000000000000000000000000007");
        assert_ne!(ids.id(1), ids.id(2));
        assert_eq!(ids.id(1), ToolCallIds::from_seed(7).id(1));
    }
}
