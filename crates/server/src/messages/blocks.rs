//! Turns what the parser finds into content blocks: which begin, what they get, which end.
//!
//! Streams write these events out and whole answers collect them, so that both say the same.

use backstop_protocol::anthropic::{
    BlockDelta, ContentBlock, Event, THINKING_SIGNATURE, ThinkingDisplay,
};
use backstop_text::ParsedEvent;
use serde_json::{Map, Value};

use super::Shape;

/// How ids of calls begin here, and in the parser.
const ID_PREFIX: &str = "toolu_";
const PARSER_ID_PREFIX: &str = "chatcmpl-tool-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    ToolUse(usize),
}

/// The blocks of one answer as they come.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Blocks begun.
    count: u32,
    open: Option<Kind>,
}

impl Blocks {
    /// Adds to `out` what `event` means for the blocks.
    pub(super) fn apply<'a>(
        &mut self,
        event: &'a ParsedEvent,
        shape: &Shape,
        out: &mut Vec<Event<'a>>,
    ) {
        match event {
            ParsedEvent::ReasoningDelta(_) if !shape.thinking => {}
            ParsedEvent::ReasoningDelta(thinking) => {
                self.open(Kind::Thinking, empty_thinking(), out);
                if shape.display == ThinkingDisplay::Full {
                    self.delta(BlockDelta::ThinkingDelta { thinking }, out);
                }
            }
            ParsedEvent::ContentDelta(text) => {
                let block = ContentBlock::Text {
                    text: String::new(),
                };
                self.open(Kind::Text, block, out);
                self.delta(BlockDelta::TextDelta { text }, out);
            }
            ParsedEvent::ToolCallStart { index, .. }
            | ParsedEvent::ToolCallArgumentsDelta { index, .. }
                if *index > 0 && !shape.parallel_tool_calls => {}
            ParsedEvent::ToolCallStart { index, id, name } => {
                let id = id.strip_prefix(PARSER_ID_PREFIX).unwrap_or(id);
                let block = ContentBlock::ToolUse {
                    id: format!("{ID_PREFIX}{id}"),
                    name: name.clone(),
                    input: Map::new(),
                };
                self.open(Kind::ToolUse(*index), block, out);
            }
            ParsedEvent::ToolCallArgumentsDelta { index, delta } => {
                if self.open == Some(Kind::ToolUse(*index)) {
                    let delta = BlockDelta::InputJsonDelta {
                        partial_json: delta,
                    };
                    self.delta(delta, out);
                }
            }
        }
    }

    /// Adds to `out` the end of the last block.
    pub(super) fn close(&mut self, out: &mut Vec<Event<'_>>) {
        let Some(kind) = self.open else {
            return;
        };
        if kind == Kind::Thinking {
            let signature = THINKING_SIGNATURE;
            self.delta(BlockDelta::SignatureDelta { signature }, out);
        }
        out.push(Event::ContentBlockStop {
            index: self.index(),
        });
        self.open = None;
    }

    fn open(&mut self, kind: Kind, content_block: ContentBlock, out: &mut Vec<Event<'_>>) {
        if self.open == Some(kind) {
            return;
        }
        self.close(out);
        self.open = Some(kind);
        self.count += 1;
        out.push(Event::ContentBlockStart {
            index: self.index(),
            content_block,
        });
    }

    fn delta<'a>(&self, delta: BlockDelta<'a>, out: &mut Vec<Event<'a>>) {
        out.push(Event::ContentBlockDelta {
            index: self.index(),
            delta,
        });
    }

    fn index(&self) -> u32 {
        self.count.saturating_sub(1)
    }
}

fn empty_thinking() -> ContentBlock {
    ContentBlock::Thinking {
        thinking: String::new(),
        signature: "",
    }
}

/// Adds up events to blocks.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) blocks: Vec<ContentBlock>,
    /// The arguments of the call under way.
    arguments: String,
}

impl Collected {
    pub(super) fn apply(&mut self, event: Event<'_>) {
        match event {
            Event::ContentBlockStart { content_block, .. } => self.blocks.push(content_block),
            Event::ContentBlockDelta { delta, .. } => self.add(delta),
            Event::ContentBlockStop { .. } => self.end(),
            Event::MessageStart { .. }
            | Event::MessageDelta { .. }
            | Event::MessageStop
            | Event::Ping => {}
        }
    }

    fn add(&mut self, delta: BlockDelta<'_>) {
        match (self.blocks.last_mut(), delta) {
            (Some(ContentBlock::Text { text }), BlockDelta::TextDelta { text: more }) => {
                text.push_str(more);
            }
            (
                Some(ContentBlock::Thinking { thinking, .. }),
                BlockDelta::ThinkingDelta { thinking: more },
            ) => thinking.push_str(more),
            (
                Some(ContentBlock::Thinking { signature, .. }),
                BlockDelta::SignatureDelta { signature: whole },
            ) => *signature = whole,
            (_, BlockDelta::InputJsonDelta { partial_json }) => {
                self.arguments.push_str(partial_json);
            }
            _ => {}
        }
    }

    /// The form has room for an object alone: arguments that are none, because the answer was cut
    /// off or the model erred, become an empty one, which tools refuse.
    fn end(&mut self) {
        let arguments = std::mem::take(&mut self.arguments);
        if let Some(ContentBlock::ToolUse { input, .. }) = self.blocks.last_mut()
            && let Ok(Value::Object(entries)) = serde_json::from_str(&arguments)
        {
            *input = entries;
        }
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::anthropic::sse_event;

    use super::*;

    fn shape(display: ThinkingDisplay, parallel_tool_calls: bool) -> Shape {
        Shape {
            id: String::new(),
            model: String::new(),
            thinking: true,
            display,
            parallel_tool_calls,
            cut_by_context: false,
        }
    }

    fn answer() -> Vec<ParsedEvent> {
        let call = |index, id: &str| ParsedEvent::ToolCallStart {
            index,
            id: format!("chatcmpl-tool-{id}"),
            name: "look".into(),
        };
        let arguments = |index, delta: &str| ParsedEvent::ToolCallArgumentsDelta {
            index,
            delta: delta.into(),
        };
        vec![
            ParsedEvent::ReasoningDelta("Hm".into()),
            ParsedEvent::ReasoningDelta("m".into()),
            ParsedEvent::ContentDelta("I ".into()),
            ParsedEvent::ContentDelta("look".into()),
            call(0, "a"),
            arguments(0, "{\"at\""),
            arguments(0, ": 1}"),
            call(1, "b"),
            arguments(1, "{\"at"),
        ]
    }

    fn run(shape: &Shape) -> (String, Value) {
        let (mut blocks, mut collected) = (Blocks::default(), Collected::default());
        let mut stream = String::new();
        let parsed = answer();
        let mut events = Vec::new();
        for event in &parsed {
            blocks.apply(event, shape, &mut events);
        }
        blocks.close(&mut events);
        for event in events {
            stream += &sse_event(&event);
            collected.apply(event);
        }
        (stream, serde_json::to_value(collected.blocks).unwrap())
    }

    #[test]
    fn blocks_follow_one_another_and_arguments_are_parsed() {
        let (stream, blocks) = run(&shape(ThinkingDisplay::Full, true));
        let expected = serde_json::json!([
            {"type": "thinking", "thinking": "Hmm", "signature": THINKING_SIGNATURE},
            {"type": "text", "text": "I look"},
            {"type": "tool_use", "id": "toolu_a", "name": "look", "input": {"at": 1}},
            {"type": "tool_use", "id": "toolu_b", "name": "look", "input": {}},
        ]);
        assert_eq!(blocks, expected);
        assert_eq!(stream.matches("event: content_block_start").count(), 4);
        assert_eq!(stream.matches("event: content_block_stop").count(), 4);
        assert!(stream.contains("\"index\":3,\"delta\":{\"type\":\"input_json_delta\""));
    }

    #[test]
    fn reasoning_can_be_left_out_and_calls_limited_to_one() {
        let (stream, blocks) = run(&shape(ThinkingDisplay::Omitted, false));
        assert_eq!(blocks[0]["thinking"], "");
        assert_eq!(blocks[0]["signature"], THINKING_SIGNATURE);
        assert_eq!(blocks.as_array().unwrap().len(), 3);
        assert!(!stream.contains("Hm") && !stream.contains("toolu_b"));
    }
}
