//! The events of a stream.

use serde::Serialize;

use super::reasoning::ReasoningForm;
use super::response::{ItemPart, OutputItem, ResponseObject};

/// What a part of an item holds, which decides the names of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// Text of a message.
    Text,
    /// Reasoning as the content of its item.
    Reasoning,
    /// Reasoning as the summary of its item.
    Summary,
}

/// Where a part is: the first of its item, as no item has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPlace<'a> {
    /// What it holds.
    pub kind: PartKind,
    /// The id of its item.
    pub item_id: &'a str,
    /// The number of its item.
    pub output_index: usize,
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    sequence_number: u64,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ResponseObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<&'a OutputItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<ItemPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<[(); 0]>,
}

impl PartKind {
    /// The part in which reasoning of this form is shown.
    pub fn of_reasoning(form: ReasoningForm) -> Self {
        match form.as_summary {
            true => Self::Summary,
            false => Self::Reasoning,
        }
    }
}

impl<'a> PartPlace<'a> {
    fn body(self) -> Body<'a> {
        let first = Some(0);
        let is_summary = self.kind == PartKind::Summary;
        Body {
            item_id: Some(self.item_id),
            output_index: Some(self.output_index),
            content_index: first.filter(|_| !is_summary),
            summary_index: first.filter(|_| is_summary),
            ..Body::default()
        }
    }

    /// Clients insist on a list of log-probabilities with text.
    fn logprobs(self) -> Option<[(); 0]> {
        (self.kind == PartKind::Text).then_some([])
    }
}

impl<'a> Event<'a> {
    fn new(kind: &'static str, body: Body<'a>) -> Self {
        Self {
            kind,
            sequence_number: 0,
            body,
        }
    }

    /// Its name.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The same event as number `sequence_number` of its stream.
    pub fn numbered(self, sequence_number: u64) -> Self {
        Self {
            sequence_number,
            ..self
        }
    }

    fn about_response(kind: &'static str, response: ResponseObject<'a>) -> Self {
        let response = Some(response);
        Self::new(
            kind,
            Body {
                response,
                ..Body::default()
            },
        )
    }

    /// The first event.
    pub fn created(response: ResponseObject<'a>) -> Self {
        Self::about_response("response.created", response)
    }

    /// The second event, and again in long pauses.
    pub fn in_progress(response: ResponseObject<'a>) -> Self {
        Self::about_response("response.in_progress", response)
    }

    /// The last event, named by how the answer ended.
    pub fn ended(response: ResponseObject<'a>) -> Self {
        Self::about_response(response.final_event(), response)
    }

    fn about_item(kind: &'static str, output_index: usize, item: &'a OutputItem) -> Self {
        let body = Body {
            output_index: Some(output_index),
            item: Some(item),
            ..Body::default()
        };
        Self::new(kind, body)
    }

    /// An item begins.
    pub fn item_added(output_index: usize, item: &'a OutputItem) -> Self {
        Self::about_item("response.output_item.added", output_index, item)
    }

    /// An item has ended.
    pub fn item_done(output_index: usize, item: &'a OutputItem) -> Self {
        Self::about_item("response.output_item.done", output_index, item)
    }

    fn about_part(kind: &'static str, place: PartPlace<'a>, text: String) -> Self {
        let body = Body {
            part: Some(ItemPart::new(place.kind, text)),
            ..place.body()
        };
        Self::new(kind, body)
    }

    /// A part begins.
    pub fn part_added(place: PartPlace<'a>) -> Self {
        let kind = match place.kind {
            PartKind::Text | PartKind::Reasoning => "response.content_part.added",
            PartKind::Summary => "response.reasoning_summary_part.added",
        };
        Self::about_part(kind, place, String::new())
    }

    /// A part has ended.
    pub fn part_done(place: PartPlace<'a>, text: String) -> Self {
        let kind = match place.kind {
            PartKind::Text | PartKind::Reasoning => "response.content_part.done",
            PartKind::Summary => "response.reasoning_summary_part.done",
        };
        Self::about_part(kind, place, text)
    }

    /// More text of a part.
    pub fn text_delta(place: PartPlace<'a>, delta: &'a str) -> Self {
        let kind = match place.kind {
            PartKind::Text => "response.output_text.delta",
            PartKind::Reasoning => "response.reasoning_text.delta",
            PartKind::Summary => "response.reasoning_summary_text.delta",
        };
        let body = Body {
            delta: Some(delta),
            logprobs: place.logprobs(),
            ..place.body()
        };
        Self::new(kind, body)
    }

    /// The whole text of a part.
    pub fn text_done(place: PartPlace<'a>, text: &'a str) -> Self {
        let kind = match place.kind {
            PartKind::Text => "response.output_text.done",
            PartKind::Reasoning => "response.reasoning_text.done",
            PartKind::Summary => "response.reasoning_summary_text.done",
        };
        let body = Body {
            text: Some(text),
            logprobs: place.logprobs(),
            ..place.body()
        };
        Self::new(kind, body)
    }

    /// More of the arguments of a function call.
    pub fn arguments_delta(output_index: usize, item_id: &'a str, delta: &'a str) -> Self {
        let body = Body {
            item_id: Some(item_id),
            output_index: Some(output_index),
            delta: Some(delta),
            ..Body::default()
        };
        Self::new("response.function_call_arguments.delta", body)
    }

    /// What is said of a call that has ended, before its item is. The input of a custom tool
    /// comes in one piece: until it is whole it is JSON that may yet turn out to be none.
    pub fn call_done(output_index: usize, item: &'a OutputItem) -> Vec<Self> {
        let body = |id: &'a str| Body {
            item_id: Some(id),
            output_index: Some(output_index),
            ..Body::default()
        };
        match item {
            OutputItem::FunctionCall {
                id,
                name,
                arguments,
                ..
            } => {
                let body = Body {
                    name: Some(name),
                    arguments: Some(arguments),
                    ..body(id)
                };
                vec![Self::new("response.function_call_arguments.done", body)]
            }
            OutputItem::CustomToolCall { id, input, .. } => {
                let delta = Body {
                    delta: Some(input),
                    ..body(id)
                };
                let done = Body {
                    input: Some(input),
                    ..body(id)
                };
                vec![
                    Self::new("response.custom_tool_call_input.delta", delta),
                    Self::new("response.custom_tool_call_input.done", done),
                ]
            }
            OutputItem::ToolSearchCall { .. }
            | OutputItem::Reasoning { .. }
            | OutputItem::Message { .. } => Vec::new(),
        }
    }
}
