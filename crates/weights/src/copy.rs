//! Copies tensors into memory of the caller's, checking every value on the way.

use rayon::prelude::*;

use crate::checkpoint::RowOrder;
use crate::shard::Shard;
use crate::{Checkpoint, LoadError, LoadProblem, TensorInfo, check_finite};

/// Bytes of each of two tensors that are compared at once.
const COMPARED_BYTES: usize = 4 << 20;

/// Something to read.
#[derive(Debug)]
pub struct Piece<'a, T> {
    /// The tensor that it is a part of.
    pub tensor: &'a str,
    /// Where it begins: the weight file, and the place in that.
    pub position: (usize, u64),
    /// What to do.
    pub work: T,
}

/// Reads pieces on all cores of the current rayon pool, one after the other as they lie in the files,
/// which storage likes best. Goes on after problems, and tells the first of each tensor.
pub fn read_in_order<T: Send>(
    mut pieces: Vec<Piece<'_, T>>,
    read: impl Fn(T) -> Result<(), LoadProblem> + Sync,
) -> Result<(), LoadError> {
    pieces.sort_by_key(|piece| piece.position);
    // Not halves of the list for halves of the cores: that would read at several places at once.
    let pieces = pieces.into_iter().enumerate().par_bridge();
    let mut problems: Vec<(usize, &str, LoadProblem)> = pieces
        .filter_map(|(place, piece)| Some((place, piece.tensor, read(piece.work).err()?)))
        .collect();
    problems.sort_by_key(|(place, ..)| *place);
    problems.dedup_by_key(|(_, tensor, _)| *tensor);
    match problems.is_empty() {
        true => Ok(()),
        false => Err(LoadError {
            problems: problems.into_iter().map(|(.., problem)| problem).collect(),
        }),
    }
}

impl Checkpoint {
    /// The bytes of one tensor: its elements, row-major and little-endian.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, LoadProblem> {
        // The file has that many bytes, so a damaged header cannot ask for more than is there.
        let mut bytes = vec![0; self.known(name)?.bytes as usize];
        self.read_part(name, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `destination` from this byte of a tensor on. Both are whole elements.
    pub fn read_part(
        &self,
        name: &str,
        from: u64,
        destination: &mut [u8],
    ) -> Result<(), LoadProblem> {
        let tensor = self.known(name)?;
        let name = || name.to_owned();
        if !tensor.has_elements(from, destination.len() as u64) {
            return Err(LoadProblem::Length {
                name: name(),
                tensor_bytes: tensor.bytes,
                destination_bytes: destination.len() as u64,
            });
        }
        let shard = &self.shards.files[tensor.shard_index];
        read_rows(shard, tensor, from, destination).map_err(|source| LoadProblem::Read {
            name: name(),
            path: shard.path.clone(),
            source,
        })?;
        match check_finite(tensor.element_type, destination) {
            None => Ok(()),
            Some(within) => {
                // Only types with whole units have values that are not finite.
                let (numbers, bytes) = tensor.element_type.unit().unwrap_or((1, 1));
                let index = from / bytes as u64 * numbers as u64 + within as u64;
                Err(LoadProblem::NotFinite {
                    name: name(),
                    index,
                })
            }
        }
    }

    /// Says to the system that these bytes of a weight file, as far as there are such, will be read soon.
    pub fn will_read(&self, file: usize, from: u64, bytes: u64) {
        if let Some(shard) = self.shards.files.get(file) {
            shard.will_read(from, bytes);
        }
    }

    /// Whether two tensors have the same type, shape and bytes. They are read as far as they agree, and a piece at a time.
    pub fn are_same(&self, one: &str, other: &str) -> Result<bool, LoadProblem> {
        let (first, second) = (self.known(one)?, self.known(other)?);
        if first.element_type != second.element_type || first.shape != second.shape {
            return Ok(false);
        }
        let piece = COMPARED_BYTES - COMPARED_BYTES % first.unit_bytes();
        let mut from = 0;
        let mut pieces = [Vec::new(), Vec::new()];
        while from < first.bytes {
            let length = (first.bytes - from).min(piece as u64) as usize;
            for (bytes, name) in pieces.iter_mut().zip([one, other]) {
                bytes.resize(length, 0);
                self.read_part(name, from, bytes)?;
            }
            if pieces[0] != pieces[1] {
                return Ok(false);
            }
            from += length as u64;
        }
        Ok(true)
    }

    fn known(&self, name: &str) -> Result<&TensorInfo, LoadProblem> {
        self.tensor(name).ok_or_else(|| LoadProblem::Unknown {
            name: name.to_owned(),
        })
    }
}

/// Fills `destination` from `offset` of the tensor on, with its rows in the order of the model.
fn read_rows(
    shard: &Shard,
    tensor: &TensorInfo,
    offset: u64,
    destination: &mut [u8],
) -> std::io::Result<()> {
    let head_rows = match tensor.row_order {
        RowOrder::AsStored => return shard.read_at(destination, tensor.offset_bytes + offset),
        RowOrder::PairsTogether { head_rows } => head_rows,
    };
    let row_bytes = tensor.bytes as usize / tensor.shape[0];
    let head_bytes = head_rows * row_bytes;
    // Bounded when the file was opened.
    let (mut stored, mut ordered) = (vec![0; head_bytes], vec![0; head_bytes]);
    let mut filled = 0;
    while filled < destination.len() {
        let position = offset + filled as u64;
        let within = (position % head_bytes as u64) as usize;
        let head_start = position - within as u64;
        shard.read_at(&mut stored, tensor.offset_bytes + head_start)?;
        for (index, row) in stored.chunks_exact(row_bytes).enumerate() {
            let place = index / 2 + index % 2 * (head_rows / 2);
            ordered[place * row_bytes..][..row_bytes].copy_from_slice(row);
        }
        let count = (head_bytes - within).min(destination.len() - filled);
        destination[filled..][..count].copy_from_slice(&ordered[within..][..count]);
        filled += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
