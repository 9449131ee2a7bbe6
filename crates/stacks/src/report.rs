//! What is told of a thread.

use std::fmt;

/// A thread, and what it is doing.
#[derive(Clone, Debug)]
pub struct ThreadStack {
    /// The kernel's number of the thread.
    pub id: i32,
    /// Its name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// What it was doing before it was asked, in a word: `running`, `sleeping`.
    pub state: &'static str,
    /// Its stack, if it told.
    pub answer: Answer,
}

/// What came of asking a thread.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Its calls, the innermost first.
    Stack(Vec<Frame>),
    /// It did not answer in time; what the kernel says that it waits for, as far as it does.
    Blocked(String),
    /// It has ended meanwhile.
    Ended,
    /// It was not asked: there are more threads than there is room for.
    NotAsked,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where in this process it is.
    pub address: usize,
    /// Name of the function, or, if the program has none, the file that the address is from and the place in it.
    pub function: Option<String>,
    /// File and line, if the program has them.
    pub line: Option<String>,
}

impl fmt::Display for ThreadStack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            name,
            state,
            answer,
        } = self;
        write!(formatter, "thread {name} ({id}), {state}")?;
        match answer {
            Answer::Stack(frames) => {
                for frame in frames {
                    write!(formatter, "\n    {frame}")?;
                }
                Ok(())
            }
            Answer::Blocked(waits_for) => {
                write!(formatter, ": does not answer; {waits_for}")
            }
            Answer::Ended => formatter.write_str(": has ended"),
            Answer::NotAsked => formatter.write_str(": not asked, for there are too many threads"),
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            function,
            line,
        } = self;
        match function {
            Some(function) => formatter.write_str(function)?,
            None => write!(formatter, "{address:#x}")?,
        }
        match line {
            Some(line) => write!(formatter, " at {line}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_told_in_lines() {
        let frame = |function: Option<&str>, line: Option<&str>| Frame {
            address: 0x10,
            function: function.map(str::to_owned),
            line: line.map(str::to_owned),
        };
        let mut thread = ThreadStack {
            id: 7,
            name: "engine".to_owned(),
            state: "sleeping",
            answer: Answer::Stack(vec![frame(Some("wait"), Some("a.rs:3")), frame(None, None)]),
        };
        let told = "thread engine (7), sleeping\n    wait at a.rs:3\n    0x10";
        assert_eq!(thread.to_string(), told);
        thread.answer = Answer::Blocked("in the kernel".to_owned());
        let told = "thread engine (7), sleeping: does not answer; in the kernel";
        assert_eq!(thread.to_string(), told);
    }
}
