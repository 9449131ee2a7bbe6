//! The audit log: who asked for what and how it ended, in lines that a chain of hashes holds together.
//!
//! A file is lines of JSON. The last field of each is `hash`, the SHA-256 of the line before's hash (as 64 hexadecimal
//! digits) and the line's own text up to the comma before `"hash"`. So each line vouches for all lines before it:
//! whoever changes one, takes one out or puts one in has to write anew all that follow, and the last hash with them.
//!
//! [`AuditLog`] is the threads that write, [`AuditRecorder`] what hands it entries and never waits, [`verify`] reads the
//! files and says whether the chain holds. [`Ledger`] decides what is written after what; it has no thread and no clock,
//! and writes to any [`Medium`], so that disks can fail in tests.

mod entry;
mod files;
mod hash;
mod ledger;
mod line;
mod log;
mod sync;
mod tail;
mod torn;
mod verify;

pub use entry::{AnswerText, Entry, Outcome, RequestEntry, ServedAs, Texts};
pub use files::{NextFile, OpenError, Rotation};
pub use hash::{Hash, HashError};
pub use ledger::{Confirm, Ledger, Medium};
pub use log::{AuditLog, AuditRecorder, AuditSettings, AuditState, TextShare};
pub use tail::head;
pub use verify::{Mark, Place, Report, verify};
