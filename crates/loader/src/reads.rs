//! Reads rows a strip at a time, in the order of the files, on all cores.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_kernels::PANEL_ROWS;
use backstop_weights::{Checkpoint, LoadError, LoadProblem, Piece, read_in_order};

use crate::source::Source;

/// Bytes of a strip: large enough for a storage device to stream, small enough to share one tensor
/// between cores.
pub(crate) const STRIP_BYTES: usize = 4 << 20;
/// Rows that are turned into panels at once: they and their panels stay in a core's own cache.
const TURNED_BYTES: usize = 256 << 10;
/// How far ahead of what is read the system is asked to read, so that storage works while rows are turned: some
/// hundredths of a second of a fast disk.
pub(crate) const AHEAD_BYTES: u64 = 32 << 20;

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
    /// Whole panels, of which the last may lack rows.
    Panels(&'a mut [u8]),
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

    /// Adds all rows of a source, which begin a panel. `out` has the size of their panels.
    pub(crate) fn panels(&mut self, source: &'a Source, out: &'a mut [u8]) {
        let mut rest = out;
        for strip in source.strips_of_panels(0..source.rows, STRIP_BYTES) {
            let (out, behind) = rest.split_at_mut(panel_bytes(source, &strip));
            self.push(source, strip, Destination::Panels(out));
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
            let (file, place) = source.position(checkpoint, rows.start);
            checkpoint.will_read(file, place + AHEAD_BYTES, bytes);
            let outcome = match to {
                Destination::Rows(out) => source.read_rows(checkpoint, rows, out),
                Destination::Panels(out) => read_panels(checkpoint, source, rows, out),
                Destination::Numbers(out) => source.read_numbers(checkpoint, rows, out),
            };
            advance(bytes);
            outcome
        })
    }
}

/// Reads rows and turns them into panels while they are in the cache.
fn read_panels(
    checkpoint: &Checkpoint,
    source: &Source,
    rows: Range<usize>,
    out: &mut [u8],
) -> Result<(), LoadProblem> {
    let (mut stored, mut rest) = (Vec::new(), out);
    for rows in source.strips_of_panels(rows, TURNED_BYTES) {
        let (out, behind) = rest.split_at_mut(panel_bytes(source, &rows));
        stored.resize(rows.len() * source.row_bytes(), 0);
        source.read_rows(checkpoint, rows, &mut stored)?;
        source.format.arrange(source.columns, &stored, out);
        rest = behind;
    }
    Ok(())
}

fn panel_bytes(source: &Source, rows: &Range<usize>) -> usize {
    rows.len().next_multiple_of(PANEL_ROWS) * source.row_bytes()
}

/// Tells `progress` the sum of what it is told.
pub(crate) fn summed(progress: &(dyn Fn(u64) + Sync)) -> impl Fn(u64) + Sync {
    let done = AtomicU64::new(0);
    move |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes)
}
