//! The items of an answer while they come into being, and the events that tell of it.

use backstop_protocol::FinishReason;
use backstop_protocol::responses::{
    Event, OutputItem, PartKind, PartPlace, ReasoningForm, Status, ToolKind, ToolOrigin, ToolTable,
};
use backstop_text::ParsedEvent;

/// Takes the events of an answer.
pub(super) trait Sink {
    /// One event, not yet numbered.
    fn event(&mut self, event: Event<'_>);
}

/// Takes events and forgets them, for answers in one piece.
impl Sink for () {
    fn event(&mut self, _event: Event<'_>) {}
}

/// The items so far. At most one of them, the last, is open.
pub(super) struct Output {
    /// Ends the ids of all items.
    suffix: String,
    tools: ToolTable,
    reasoning: ReasoningForm,
    /// Calls that the client wants at most.
    calls_max: usize,
    done: Vec<OutputItem>,
    open: Option<Open>,
}

/// An item that is not complete.
struct Open {
    id: String,
    kind: OpenKind,
    text: String,
}

/// What an open item is. Its text is what was thought or said, or the arguments of the call.
enum OpenKind {
    Reasoning(ReasoningForm),
    Message,
    Call { call_id: String, origin: ToolOrigin },
}

impl Output {
    pub(super) fn new(
        suffix: String,
        tools: ToolTable,
        reasoning: ReasoningForm,
        calls_max: usize,
    ) -> Self {
        Self {
            suffix,
            tools,
            reasoning,
            calls_max,
            done: Vec::new(),
            open: None,
        }
    }

    /// The items that have ended.
    pub(super) fn items(&self) -> &[OutputItem] {
        &self.done
    }

    /// Adds what the model has said.
    pub(super) fn add(&mut self, event: ParsedEvent, sink: &mut impl Sink) {
        match event {
            ParsedEvent::ReasoningDelta(text) => {
                if !self.is_open(|kind| matches!(kind, OpenKind::Reasoning(_))) {
                    self.open("rs", OpenKind::Reasoning(self.reasoning), sink);
                }
                self.append(&text, sink);
            }
            ParsedEvent::ContentDelta(text) => {
                if !self.is_open(|kind| matches!(kind, OpenKind::Message)) {
                    self.open("msg", OpenKind::Message, sink);
                }
                self.append(&text, sink);
            }
            ParsedEvent::ToolCallStart { index, id, name } if index < self.calls_max => {
                let origin = self.tools.origin(&name);
                let prefix = match origin.kind {
                    ToolKind::Function => "fc",
                    ToolKind::Custom => "ctc",
                    ToolKind::Search => "tsc",
                };
                let call_id = call_id(&id);
                self.open(prefix, OpenKind::Call { call_id, origin }, sink);
            }
            ParsedEvent::ToolCallArgumentsDelta { index, delta } if index < self.calls_max => {
                self.append(&delta, sink);
            }
            ParsedEvent::ToolCallStart { .. } | ParsedEvent::ToolCallArgumentsDelta { .. } => {}
        }
    }

    /// Ends the answer.
    pub(super) fn end(&mut self, reason: FinishReason, sink: &mut impl Sink) -> Status {
        let status = match reason {
            FinishReason::Stop | FinishReason::ToolCalls => Status::Completed,
            FinishReason::Length => Status::Incomplete,
        };
        self.close(status, sink);
        status
    }

    fn is_open(&self, is_wanted: impl Fn(&OpenKind) -> bool) -> bool {
        self.open.as_ref().is_some_and(|open| is_wanted(&open.kind))
    }

    /// Begins an item; what was open before has ended.
    fn open(&mut self, prefix: &str, kind: OpenKind, sink: &mut impl Sink) {
        self.close(Status::Completed, sink);
        let output_index = self.done.len();
        let open = Open {
            id: format!("{prefix}_{}_{output_index}", self.suffix),
            kind,
            text: String::new(),
        };
        sink.event(Event::item_added(
            output_index,
            &open.item(Status::InProgress),
        ));
        if let Some(place) = open.part(output_index) {
            sink.event(Event::part_added(place));
        }
        self.open = Some(open);
    }

    fn append(&mut self, text: &str, sink: &mut impl Sink) {
        let output_index = self.done.len();
        let Some(open) = &mut self.open else {
            return;
        };
        open.text.push_str(text);
        if let Some(place) = open.part(output_index) {
            sink.event(Event::text_delta(place, text));
        } else if open.is_function_call() {
            sink.event(Event::arguments_delta(output_index, &open.id, text));
        }
    }

    fn close(&mut self, status: Status, sink: &mut impl Sink) {
        if status == Status::Completed && self.open.as_ref().is_some_and(Open::lacks_arguments) {
            // Clients parse the arguments, and a call without any is a call with none.
            self.append("{}", sink);
        }
        let Some(open) = self.open.take() else {
            return;
        };
        let output_index = self.done.len();
        if let Some(place) = open.part(output_index) {
            sink.event(Event::text_done(place, &open.text));
            sink.event(Event::part_done(place, open.text.clone()));
        }
        let item = open.item(status);
        for event in Event::call_done(output_index, &item) {
            sink.event(event);
        }
        sink.event(Event::item_done(output_index, &item));
        self.done.push(item);
    }
}

impl Open {
    /// Where its text is, if it has a part for it.
    fn part(&self, output_index: usize) -> Option<PartPlace<'_>> {
        let kind = match self.kind {
            OpenKind::Reasoning(form) => PartKind::of_reasoning(form),
            OpenKind::Message => PartKind::Text,
            OpenKind::Call { .. } => return None,
        };
        Some(PartPlace {
            kind,
            item_id: &self.id,
            output_index,
        })
    }

    fn is_function_call(&self) -> bool {
        let OpenKind::Call { origin, .. } = &self.kind else {
            return false;
        };
        origin.kind == ToolKind::Function
    }

    fn lacks_arguments(&self) -> bool {
        matches!(self.kind, OpenKind::Call { .. }) && self.text.is_empty()
    }

    fn item(&self, status: Status) -> OutputItem {
        let (id, text) = (self.id.clone(), self.text.clone());
        match &self.kind {
            OpenKind::Reasoning(form) => OutputItem::reasoning(id, text, *form, status),
            OpenKind::Message => OutputItem::message(id, text, status),
            OpenKind::Call { call_id, origin } => {
                OutputItem::call(id, call_id.clone(), origin, text, status)
            }
        }
    }
}

/// The call's id in the style of this API.
fn call_id(id: &str) -> String {
    let unique = id.rsplit('-').next().unwrap_or(id);
    format!("call_{unique}")
}
