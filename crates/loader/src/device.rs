//! Fills a device's memory.
//!
//! Rows go through staging buffers: while the device takes in one, the next is filled, in the order in which the rows
//! lie in the files. Numbers that the device has as f32 are read before all rows and sent behind them.

use backstop_arch::ModelSpec;
use backstop_card::CudaWeights;
use backstop_card::staging::{StagedRows, WeightNumbers, WeightRows, WeightStaging};
use backstop_weights::Checkpoint;

use crate::device_plan::sources;
use crate::reads::{Reads, STRIP_BYTES, summed};
use crate::resolve::NumbersOf;
use crate::source::{Source, rows_of};
use crate::{LoadFailure, Sources};

/// Bytes of each of the two staging buffers: some milliseconds of copying.
const STAGING_BYTES: usize = 256 << 20;
/// Rows begin at multiples of this many bytes in a staging buffer.
const ALIGNMENT: usize = 256;

/// Fills the memory that a plan for this checkpoint has reserved. `progress` is told the bytes
/// read so far, out of [`Checkpoint::bytes_total`].
pub fn load_device_weights(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    weights: &CudaWeights,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), LoadFailure> {
    load_in_pieces(checkpoint, spec, weights, STAGING_BYTES, progress)
}

/// The same, with staging buffers of at most `staging_bytes`, if that holds the longest row.
pub fn load_in_pieces(
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    weights: &CudaWeights,
    staging_bytes: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), LoadFailure> {
    let sources = sources(checkpoint, spec)?;
    let advance = summed(progress);
    let numbers = sources.numbers.iter();
    let numbers = numbers.map(|numbers| vec![0.0; rows_of(&numbers.sources)]);
    let mut numbers: Vec<Vec<f32>> = numbers.collect();
    let mut reads = Reads::new(checkpoint);
    for (values, numbers) in numbers.iter_mut().zip(&sources.numbers) {
        reads.numbers(&numbers.sources, values);
    }
    reads.run(&advance)?;

    let strips = strips(checkpoint, &sources, staging_bytes);
    let buffer_bytes = buffer_bytes(&strips, staging_bytes);
    let mut staging = WeightStaging::new(weights, buffer_bytes)?;
    for piece in pieces(strips, buffer_bytes) {
        let mut reads = Reads::new(checkpoint);
        let mut rest = staging.begin()?;
        for strip in &piece {
            let (place, behind) = rest.split_at_mut(strip.padded_bytes());
            let first = strip.first_row;
            let rows = first..first + strip.to.rows;
            reads.rows(strip.source, rows, &mut place[..strip.bytes()]);
            rest = behind;
        }
        reads.run(&advance)?;
        let staged: Vec<StagedRows> = piece.iter().map(|strip| strip.to).collect();
        staging.send(&staged)?;
    }
    for (values, numbers) in numbers.iter().zip(&sources.numbers) {
        if let Some(target) = target(numbers.target)
            && !values.is_empty()
        {
            staging.send_numbers(target, values)?;
        }
    }
    Ok(staging.finish()?)
}

/// What a device calls numbers; it has no biases of experts.
fn target(numbers: NumbersOf) -> Option<WeightNumbers> {
    match numbers {
        NumbersOf::Vector(id) => Some(WeightNumbers::Vector(id)),
        NumbersOf::Scales(WeightRows::GateUp(id)) => Some(WeightNumbers::GateUpScales(id)),
        NumbersOf::Scales(WeightRows::Down(id)) => Some(WeightNumbers::DownScales(id)),
        NumbersOf::Scales(WeightRows::Matrix(_)) | NumbersOf::Biases => None,
    }
}

/// Rows that are read together, and brought into tiles on the device.
struct Strip<'a> {
    source: &'a Source,
    /// The row of the source that the first one is.
    first_row: usize,
    to: StagedRows,
}

impl Strip<'_> {
    fn bytes(&self) -> usize {
        self.to.rows * self.source.row_bytes()
    }

    fn padded_bytes(&self) -> usize {
        self.bytes().next_multiple_of(ALIGNMENT)
    }
}

/// All rows, in strips of at most so many bytes if they have several rows, in the order of the files.
fn strips<'a>(checkpoint: &Checkpoint, sources: &'a Sources, bytes: usize) -> Vec<Strip<'a>> {
    let mut strips = Vec::new();
    for weight in &sources.rows {
        let mut above = 0;
        for source in &weight.sources {
            let rows = source.strips(0..source.rows, bytes.min(STRIP_BYTES));
            strips.extend(rows.map(|rows| Strip {
                source,
                first_row: rows.start,
                to: StagedRows {
                    target: weight.target,
                    first_row: above + rows.start,
                    rows: rows.len(),
                    offset: 0,
                },
            }));
            above += source.rows;
        }
    }
    strips.sort_by_key(|strip| strip.source.position(checkpoint, strip.first_row));
    strips
}

/// Bytes of a buffer that holds everything if that is not more than `most`, and any one strip.
fn buffer_bytes(strips: &[Strip<'_>], most: usize) -> usize {
    let all = strips.iter().map(Strip::padded_bytes).sum::<usize>();
    let longest = strips.iter().map(Strip::padded_bytes).max();
    all.min(most / ALIGNMENT * ALIGNMENT)
        .max(longest.unwrap_or(ALIGNMENT))
}

/// The strips in pieces that fit a buffer.
fn pieces(strips: Vec<Strip<'_>>, buffer_bytes: usize) -> Vec<Vec<Strip<'_>>> {
    let mut pieces = vec![Vec::new()];
    let mut used = 0;
    for mut strip in strips {
        if used + strip.padded_bytes() > buffer_bytes {
            pieces.push(Vec::new());
            used = 0;
        }
        strip.to.offset = used;
        used += strip.padded_bytes();
        let piece = pieces.last_mut().expect("there is a first piece");
        piece.push(strip);
    }
    pieces
}
