//! Reads the file of a cache into weights.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_kernels::CpuWeights;
use backstop_weights::will_read;
use rayon::prelude::*;

use super::CacheMiss;
use super::file::{Extent, FileLayout, PREAMBLE_BYTES, is_of, is_ours};
use crate::reads::AHEAD_BYTES;

/// Opens a regular file. To open a pipe would wait for its writer for ever.
pub(super) fn open(path: &Path) -> Result<File, CacheMiss> {
    let status = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(CacheMiss::Absent),
        status => status?,
    };
    match status.is_file() {
        true => Ok(File::open(path)?),
        false => Err(CacheMiss::Damaged("it is no regular file".to_owned())),
    }
}

/// Fills `weights`, which are nobody else's yet, on all cores of the current rayon pool.
pub(super) fn fill(
    file: &File,
    digest: &str,
    weights: &mut CpuWeights,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), CacheMiss> {
    let mut preamble = [0; PREAMBLE_BYTES];
    read_exact(file, &mut preamble, 0)?;
    if !is_ours(&preamble) || !is_of(&preamble, digest) {
        return Err(CacheMiss::Stale);
    }
    let parts = weights.parts_mut();
    let parts = parts.ok_or_else(|| CacheMiss::Damaged("others have its memory".to_owned()))?;
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let layout = FileLayout::new(&lengths);
    if file.metadata()?.len() != layout.bytes {
        return Err(CacheMiss::Damaged("its length is another".to_owned()));
    }
    let mut header = vec![0; layout.header_bytes()];
    read_exact(file, &mut header, 0)?;
    let checksums = layout.checksums(&header);
    let checksums = checksums.ok_or_else(|| CacheMiss::Damaged("its header".to_owned()))?;

    let done = AtomicU64::new(0);
    let pieces = destinations(parts, &layout.pieces);
    let pieces = pieces.into_iter().zip(layout.pieces.iter().zip(checksums));
    pieces
        .par_bridge()
        .try_for_each(|(out, (piece, checksum))| {
            let bytes = out.len() as u64;
            will_read(file, piece.offset + AHEAD_BYTES, bytes);
            read_exact(file, out, piece.offset)?;
            if crc32fast::hash(out) != checksum {
                return Err(CacheMiss::Damaged(format!(
                    "the checksum of the {bytes} bytes from byte {} on",
                    piece.offset
                )));
            }
            let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            progress(done, layout.bytes);
            Ok(())
        })
}

/// The memory of each piece.
fn destinations<'a>(parts: Vec<&'a mut [u8]>, pieces: &[Extent]) -> Vec<&'a mut [u8]> {
    let mut destinations = Vec::with_capacity(pieces.len());
    let mut pieces = pieces.iter().peekable();
    for (index, part) in parts.into_iter().enumerate() {
        let mut rest = part;
        while let Some(piece) = pieces.next_if(|piece| piece.part == index) {
            let (out, behind) = rest.split_at_mut(piece.within.len());
            destinations.push(out);
            rest = behind;
        }
    }
    destinations
}

fn read_exact(file: &File, out: &mut [u8], offset: u64) -> Result<(), CacheMiss> {
    file.read_exact_at(out, offset)
        .map_err(|error: io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => CacheMiss::Damaged("it ends too early".to_owned()),
            _ => CacheMiss::Unreadable(error),
        })
}
