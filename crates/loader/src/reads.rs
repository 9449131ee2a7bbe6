//! Reads rows a strip at a time, all strips side by side and in the order of the files.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_weights::{Checkpoint, LoadError, Piece, read_in_order};

use crate::source::Source;

/// Bytes of a strip: large enough for a storage device to stream, small enough to share one tensor
/// between cores.
pub(crate) const STRIP_BYTES: usize = 4 << 20;

/// What is to be read, and where to.
pub(crate) struct Reads<'a> {
    checkpoint: &'a Checkpoint,
    strips: Vec<Piece<'a, Strip<'a>>>,
}

struct Strip<'a> {
    source: &'a Source,
    rows: Range<usize>,
    to: Destination<'a>,
}

enum Destination<'a> {
    /// Rows as they lie in memory.
    Rows(&'a mut [u8]),
    /// Numbers, each a row of its own.
    Numbers(&'a mut [f32]),
}

impl<'a> Reads<'a> {
    /// Nothing yet.
    pub(crate) fn new(checkpoint: &'a Checkpoint) -> Self {
        Self {
            checkpoint,
            strips: Vec::new(),
        }
    }

    /// Adds rows of a source. `out` has their size.
    pub(crate) fn rows(&mut self, source: &'a Source, rows: Range<usize>, out: &'a mut [u8]) {
        let mut rest = out;
        for strip in source.strips(rows, STRIP_BYTES) {
            let (out, behind) = rest.split_at_mut(strip.len() * source.row_bytes());
            self.push(source, strip, Destination::Rows(out));
            rest = behind;
        }
    }

    /// Adds all numbers of sources, one behind the other.
    pub(crate) fn numbers(&mut self, sources: &'a [Source], out: &'a mut [f32]) {
        let mut rest = out;
        for source in sources {
            let (out, behind) = rest.split_at_mut(source.rows);
            self.push(source, 0..source.rows, Destination::Numbers(out));
            rest = behind;
        }
    }

    fn push(&mut self, source: &'a Source, rows: Range<usize>, to: Destination<'a>) {
        self.strips.push(Piece {
            tensor: source.name(),
            position: source.position(self.checkpoint, rows.start),
            work: Strip { source, rows, to },
        });
    }

    /// Reads everything, using all cores of the current rayon pool. `advance` is told the bytes of each strip.
    pub(crate) fn run(self, advance: &(dyn Fn(u64) + Sync)) -> Result<(), LoadError> {
        let checkpoint = self.checkpoint;
        read_in_order(self.strips, |strip| {
            let Strip { source, rows, to } = strip;
            let bytes = source.stored_bytes(checkpoint, &rows);
            let outcome = match to {
                Destination::Rows(out) => source.read_rows(checkpoint, rows, out),
                Destination::Numbers(out) => source.read_numbers(checkpoint, rows, out),
            };
            advance(bytes);
            outcome
        })
    }
}

/// Tells `progress` the sum of what it is told.
pub(crate) fn summed(progress: &(dyn Fn(u64) + Sync)) -> impl Fn(u64) + Sync {
    let done = AtomicU64::new(0);
    move |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes)
}
