//! Reads tool calls that are written as JSON, `[{"name": …, "arguments": {…}}, …]` or an object
//! alone, or as a name followed by JSON, while they arrive.

use serde_json::Value;

use super::calls::CallReporter;
use super::json_scanner::{JsonScanner, Malformed, Scan};
use super::{ParsedEvent, ParserOptions, push_merged};

/// How a format writes its calls.
#[derive(Debug)]
pub(super) struct CallSyntax {
    /// The key of a call's name.
    pub(super) name_key: &'static str,
    /// Keys of its arguments.
    pub(super) argument_keys: &'static [&'static str],
    /// Several objects may follow each other without a list, with semicolons or nothing between.
    pub(super) objects_in_sequence: bool,
    /// Only a call of a tool that was offered is one, because nothing else marks it.
    pub(super) offered_tools_only: bool,
    /// Ids must be nine letters and digits.
    pub(super) short_ids: bool,
    /// Tags are ordinary text that may become content, not control tokens.
    pub(super) tags_are_text: bool,
}

/// Turns blocks of JSON into tool calls.
///
/// A call is reported when its name is known and its arguments begin; from there on the JSON
/// text of the arguments is passed on exactly as the model wrote it, broken or not. A call
/// without arguments, or with `null`, has the arguments `{}`, and arguments that are an object
/// written into a string are taken out of it. A single object may stand for a list of one, keys
/// may come in any order, and keys that mean nothing here are skipped.
///
/// No text is lost to malformed JSON: everything that belongs to no reported call, from the first
/// byte after the last complete one on, becomes content. A block that just stops (the answer was
/// cut off) is not malformed: the call under way keeps the arguments that it has, and one that
/// had not begun is dropped.
///
/// A tag inside a JSON string is data if more text follows it, and the end of a block with an
/// unterminated string if not: a program about chat formats may well write one to a file.
#[derive(Clone, Debug)]
pub(super) struct JsonCalls {
    syntax: &'static CallSyntax,
    reporter: CallReporter,
    state: State,
    in_list: bool,
    /// Tags inside a JSON string, in case that more of the string follows.
    quoted_tags: String,
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
    /// After the arguments of a call whose name stood outside of JSON: nothing more is read.
    Complete,
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
    /// The id that the model gave it, where that is to be kept.
    id: Option<String>,
    parameters: Option<String>,
    reported: bool,
    /// The name stood outside of the JSON, which is that of the arguments alone.
    named_outside: bool,
}

impl JsonCalls {
    pub(super) fn new(syntax: &'static CallSyntax, options: &ParserOptions) -> Self {
        let reporter = CallReporter::new(options);
        Self {
            syntax,
            reporter: match syntax.short_ids {
                true => reporter.with_short_ids(),
                false => reporter,
            },
            state: State::Start,
            in_list: false,
            quoted_tags: String::new(),
            call: Call::default(),
            value: JsonScanner::default(),
            raw: String::new(),
            pending: String::new(),
            delta: String::new(),
        }
    }

    /// Begins a block. Calls are numbered over all blocks of an answer.
    pub(super) fn begin(&mut self) {
        self.state = State::Start;
        self.call = Call::default();
        self.pending.clear();
        self.quoted_tags.clear();
    }

    /// Begins a block that holds the arguments of one call alone.
    pub(super) fn begin_arguments(&mut self, name: String, id: Option<String>) {
        self.begin();
        self.state = State::BeforeValue(Slot::Parameters);
        self.pending.clone_from(&name);
        self.call = Call {
            name: Some(name),
            id,
            named_outside: true,
            ..Call::default()
        };
    }

    /// Whether the text so far ends inside a JSON string.
    pub(super) fn in_string(&self) -> bool {
        matches!(self.state, State::InKey | State::InValue(_)) && self.value.in_string
    }

    /// Adds text of the block.
    pub(super) fn push(&mut self, text: &str, events: &mut Vec<ParsedEvent>) {
        let quoted_tags = std::mem::take(&mut self.quoted_tags);
        self.read(&quoted_tags, self.syntax.tags_are_text, events);
        self.read(text, true, events);
    }

    /// Adds a tag that stands inside a JSON string.
    pub(super) fn push_quoted_tag(&mut self, tag: &str) {
        self.quoted_tags.push_str(tag);
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
        let closed = closed || !self.quoted_tags.is_empty();
        let inside_call = !matches!(
            self.state,
            State::Start
                | State::Element
                | State::AfterElement
                | State::End
                | State::Complete
                | State::Broken
        );
        let lacks_arguments = self.call.named_outside && !self.call.reported;
        if inside_call && closed && lacks_arguments {
            if self.end_call(events).is_err() {
                self.give_up();
            }
        } else if inside_call && self.call.reported {
            self.reporter.next();
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
        self.reporter.arguments(delta, events);
    }

    fn give_up(&mut self) {
        if self.call.reported {
            self.reporter.next();
            self.call = Call::default();
        }
        self.state = State::Broken;
    }

    fn step(&mut self, character: char, events: &mut Vec<ParsedEvent>) -> Result<(), Malformed> {
        match self.state {
            State::Broken | State::Complete => return Ok(()),
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
            (State::End, '{' | ';') if self.may_go_on() => match character {
                '{' => State::Key,
                _ => State::End,
            },
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

    fn may_go_on(&self) -> bool {
        self.syntax.objects_in_sequence && !self.in_list
    }

    /// What the value of the key just read is for.
    fn slot(&self) -> Result<Slot, Malformed> {
        let key: String = serde_json::from_str(&self.raw).map_err(|_| Malformed)?;
        Ok(match key.as_str() {
            _ if self.call.reported => Slot::Other,
            key if key == self.syntax.name_key => Slot::Name,
            key if self.syntax.argument_keys.contains(&key) => Slot::Parameters,
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
            self.report(events)?;
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
        match self.call.named_outside {
            true => self.end_call(events),
            false => Ok(()),
        }
    }

    fn end_call(&mut self, events: &mut Vec<ParsedEvent>) -> Result<(), Malformed> {
        if !self.call.reported {
            if self.call.name.is_none() {
                return Err(Malformed);
            }
            let parameters = self.call.parameters.take();
            self.report(events)?;
            self.delta = parameters.map_or_else(|| "{}".to_owned(), whole_arguments);
            self.flush_arguments(events);
        }
        self.reporter.next();
        self.pending.clear();
        self.state = match (self.call.named_outside, self.in_list) {
            (true, _) => State::Complete,
            (false, true) => State::AfterElement,
            (false, false) => State::End,
        };
        self.call = Call::default();
        Ok(())
    }

    fn report(&mut self, events: &mut Vec<ParsedEvent>) -> Result<(), Malformed> {
        let name = self.call.name.take().unwrap_or_default();
        if self.syntax.offered_tools_only && !self.reporter.is_offered(&name) {
            return Err(Malformed);
        }
        self.reporter.start(name, self.call.id.take(), events);
        self.call.reported = true;
        self.pending.clear();
        Ok(())
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
