//! Reads the JSON of an action block, `[{"tool_name": …, "parameters": {…}}, …]`, as it arrives.

use serde_json::Value;

use super::{ParsedEvent, ToolCallIds, push_merged};

/// Turns action blocks into tool calls.
///
/// A call is reported when its name is known and its parameters begin; from there on the JSON
/// text of the parameters is passed on exactly as the model wrote it, broken or not. A call
/// without parameters, or with `null`, has the arguments `{}`, and parameters that are an object
/// written into a string are taken out of it. A single object may stand for a list of one, keys
/// may come in any order, and keys that mean nothing here are skipped.
///
/// No text is lost to malformed JSON: everything that belongs to no reported call, from the first
/// byte after the last complete one on, becomes content. A block that just stops (the answer was
/// cut off) is not malformed: the call under way keeps the arguments that it has, and one that
/// had not begun is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct ActionParser {
    ids: ToolCallIds,
    next_index: usize,
    state: State,
    in_list: bool,
    call: Call,
    value: JsonScanner,
    /// The key, the name or the parameters being read, when they can't be passed on at once.
    raw: String,
    /// Text that is no part of a reported call, in case that it turns out to be malformed.
    pending: String,
    /// Text of the arguments to be reported next.
    delta: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Element,
    Key,
    InKey,
    Colon,
    BeforeValue(Slot),
    InValue(Slot),
    AfterValue,
    AfterElement,
    End,
    Broken,
}

/// What a value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Name,
    /// Parameters that are kept until the name is known.
    Parameters,
    /// Parameters that are passed on as they come.
    StreamedParameters,
    Other,
}

/// The call being read.
#[derive(Clone, Debug, Default)]
struct Call {
    name: Option<String>,
    parameters: Option<String>,
    reported: bool,
}

#[derive(Debug)]
struct Malformed;

impl ActionParser {
    pub(super) fn new(ids: ToolCallIds) -> Self {
        Self {
            ids,
            ..Self::default()
        }
    }

    /// Begins a block. Calls are numbered over all blocks of an answer.
    pub(super) fn begin(&mut self) {
        self.state = State::Start;
        self.call = Call::default();
        self.pending.clear();
    }

    /// Whether the text so far ends inside a JSON string.
    pub(super) fn in_string(&self) -> bool {
        matches!(self.state, State::InKey | State::InValue(_)) && self.value.in_string
    }

    /// Adds text of the block.
    pub(super) fn push(&mut self, text: &str, events: &mut Vec<ParsedEvent>) {
        self.read(text, true, events);
    }

    /// Adds tags that stand inside a JSON string. They can be part of a call, never of content.
    pub(super) fn push_quoted_tags(&mut self, tags: &str, events: &mut Vec<ParsedEvent>) {
        self.read(tags, false, events);
    }

    fn read(&mut self, text: &str, may_be_content: bool, events: &mut Vec<ParsedEvent>) {
        for character in text.chars() {
            if self.state == State::InValue(Slot::StreamedParameters) {
                self.delta.push(character);
            } else if may_be_content {
                self.pending.push(character);
            }
            if self.step(character, events).is_err() {
                self.give_up();
            }
        }
        self.flush(events);
    }

    /// Ends the block; `closed` if its end was marked, not just the end of the answer.
    pub(super) fn end(&mut self, closed: bool, events: &mut Vec<ParsedEvent>) {
        let inside_call = !matches!(
            self.state,
            State::Start | State::Element | State::AfterElement | State::End | State::Broken
        );
        if inside_call && self.call.reported {
            self.next_index += 1;
        } else if inside_call && closed {
            self.give_up();
        }
        self.flush(events);
        self.begin();
    }

    fn flush(&mut self, events: &mut Vec<ParsedEvent>) {
        self.flush_arguments(events);
        if self.state == State::Broken {
            let text = std::mem::take(&mut self.pending);
            push_merged(events, ParsedEvent::ContentDelta(text));
        }
    }

    fn flush_arguments(&mut self, events: &mut Vec<ParsedEvent>) {
        let delta = std::mem::take(&mut self.delta);
        let event = ParsedEvent::ToolCallArgumentsDelta {
            index: self.next_index,
            delta,
        };
        push_merged(events, event);
    }

    fn give_up(&mut self) {
        if self.call.reported {
            self.next_index += 1;
            self.call = Call::default();
        }
        self.state = State::Broken;
    }

    fn step(&mut self, character: char, events: &mut Vec<ParsedEvent>) -> Result<(), Malformed> {
        match self.state {
            State::Broken => return Ok(()),
            State::InKey => {
                self.raw.push(character);
                if self.value.feed(character) == Scan::Last {
                    self.state = State::Colon;
                }
                return Ok(());
            }
            State::InValue(slot) => return self.step_in_value(slot, character, events),
            _ if character.is_ascii_whitespace() => return Ok(()),
            _ => {}
        }
        self.state = match (self.state, character) {
            (State::Start, '[') => {
                self.in_list = true;
                State::Element
            }
            (State::Start, '{') => {
                self.in_list = false;
                State::Key
            }
            (State::Element, '{') => State::Key,
            (State::Element | State::AfterElement, ']') => State::End,
            (State::AfterElement, ',') => State::Element,
            (State::Key, '"') => {
                self.raw = character.to_string();
                self.value = JsonScanner::begin(character)?;
                State::InKey
            }
            (State::AfterValue, ',') => State::Key,
            (State::Key | State::AfterValue, '}') => return self.end_call(events),
            (State::Colon, ':') => State::BeforeValue(self.slot()?),
            (State::BeforeValue(slot), _) => return self.begin_value(slot, character, events),
            _ => return Err(Malformed),
        };
        Ok(())
    }

    /// What the value of the key just read is for.
    fn slot(&self) -> Result<Slot, Malformed> {
        let key: String = serde_json::from_str(&self.raw).map_err(|_| Malformed)?;
        Ok(match key.as_str() {
            "tool_name" if !self.call.reported => Slot::Name,
            "parameters" if !self.call.reported => Slot::Parameters,
            _ => Slot::Other,
        })
    }

    fn begin_value(
        &mut self,
        mut slot: Slot,
        character: char,
        events: &mut Vec<ParsedEvent>,
    ) -> Result<(), Malformed> {
        self.value = JsonScanner::begin(character)?;
        self.raw = character.to_string();
        let as_it_comes = self.call.name.is_some() && !matches!(character, 'n' | '"');
        if slot == Slot::Parameters && as_it_comes {
            slot = Slot::StreamedParameters;
            self.report(events);
            self.delta.push(character);
        }
        self.state = State::InValue(slot);
        Ok(())
    }

    fn step_in_value(
        &mut self,
        slot: Slot,
        character: char,
        events: &mut Vec<ParsedEvent>,
    ) -> Result<(), Malformed> {
        let scan = self.value.feed(character);
        if scan == Scan::Before {
            // The number or literal ended before this character, which was taken for a part of it.
            if slot == Slot::StreamedParameters {
                self.delta.pop();
                self.pending.push(character);
            }
            self.end_value(slot, events)?;
            return self.step(character, events);
        }
        if slot != Slot::StreamedParameters {
            self.raw.push(character);
        }
        if scan == Scan::Last {
            self.end_value(slot, events)
        } else {
            Ok(())
        }
    }

    fn end_value(&mut self, slot: Slot, events: &mut Vec<ParsedEvent>) -> Result<(), Malformed> {
        self.state = State::AfterValue;
        match slot {
            Slot::Name => {
                let name: String = serde_json::from_str(&self.raw).map_err(|_| Malformed)?;
                if name.is_empty() {
                    return Err(Malformed);
                }
                self.call.name = Some(name);
            }
            Slot::Parameters => self.call.parameters = Some(std::mem::take(&mut self.raw)),
            Slot::StreamedParameters => self.flush_arguments(events),
            Slot::Other => {}
        }
        Ok(())
    }

    fn end_call(&mut self, events: &mut Vec<ParsedEvent>) -> Result<(), Malformed> {
        if !self.call.reported {
            if self.call.name.is_none() {
                return Err(Malformed);
            }
            let parameters = self.call.parameters.take();
            self.report(events);
            self.delta = parameters.map_or_else(|| "{}".to_owned(), whole_arguments);
            self.flush_arguments(events);
        }
        self.next_index += 1;
        self.call = Call::default();
        self.pending.clear();
        self.state = if self.in_list {
            State::AfterElement
        } else {
            State::End
        };
        Ok(())
    }

    fn report(&mut self, events: &mut Vec<ParsedEvent>) {
        let name = self.call.name.take().unwrap_or_default();
        let id = self.ids.id(self.next_index);
        push_merged(
            events,
            ParsedEvent::ToolCallStart {
                index: self.next_index,
                id,
                name,
            },
        );
        self.call.reported = true;
        self.pending.clear();
    }
}

/// The arguments that whole parameters stand for.
fn whole_arguments(parameters: String) -> String {
    match serde_json::from_str(&parameters) {
        Ok(Value::Null) => "{}".to_owned(),
        Ok(Value::String(quoted)) if is_object(&quoted) => quoted,
        _ => parameters,
    }
}

fn is_object(json: &str) -> bool {
    serde_json::from_str::<Value>(json).is_ok_and(|value| value.is_object())
}

/// Finds the end of one JSON value, without checking what is in it.
#[derive(Clone, Debug, Default)]
struct JsonScanner {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    /// The value goes on.
    Inside,
    /// This character is the value's last.
    Last,
    /// The value ended before this character.
    Before,
}

impl JsonScanner {
    fn begin(character: char) -> Result<Self, Malformed> {
        match character {
            '{' | '[' => Ok(Self {
                depth: 1,
                ..Self::default()
            }),
            '"' => Ok(Self {
                in_string: true,
                ..Self::default()
            }),
            '-' | '0'..='9' | 't' | 'f' | 'n' => Ok(Self::default()),
            _ => Err(Malformed),
        }
    }

    fn feed(&mut self, character: char) -> Scan {
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else if character == '\\' {
                self.escaped = true;
            } else if character == '"' {
                self.in_string = false;
            }
            return if self.in_string || self.depth > 0 {
                Scan::Inside
            } else {
                Scan::Last
            };
        }
        match character {
            ',' | '}' | ']' if self.depth == 0 => return Scan::Before,
            _ if self.depth == 0 && character.is_ascii_whitespace() => return Scan::Before,
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Scan::Last;
                }
            }
            _ => {}
        }
        Scan::Inside
    }
}
