//! Copies tensors into memory of the caller's, in parallel, checking every value on the way.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::checkpoint::RowOrder;
use crate::shard::Shard;
use crate::{Checkpoint, LoadError, LoadProblem, TensorInfo, check_finite};

/// Bytes copied as one piece of work: large enough for a storage device to stream, small enough to
/// share one tensor between cores. What is copied is the largest multiple of the element's size.
const CHUNK_BYTES: usize = 4 << 20;

/// One tensor, or a part of one, to copy and where to.
#[derive(Debug)]
pub struct CopyJob<'a> {
    /// The tensor.
    pub name: String,
    /// Where in the tensor a part begins; `None` for a whole tensor.
    pub part_from: Option<u64>,
    /// As many bytes as the tensor has; for a part, as many as are wanted.
    pub destination: &'a mut [u8],
}

impl<'a> CopyJob<'a> {
    /// A whole tensor, of which the destination has exactly the size.
    pub fn whole(name: String, destination: &'a mut [u8]) -> Self {
        Self {
            name,
            part_from: None,
            destination,
        }
    }
}

/// A part of one job.
struct Chunk<'a> {
    job_index: usize,
    tensor: &'a TensorInfo,
    /// From the start of the tensor.
    offset: u64,
    destination: &'a mut [u8],
}

impl Checkpoint {
    /// Copies every job's tensor or part, using all cores of the current rayon pool.
    ///
    /// `progress` is told the bytes done so far, from several threads, and may see them out of
    /// order. If a job cannot be done at all (no such tensor, wrong length) nothing is copied. After
    /// any error the destinations hold an undefined mixture.
    pub fn copy_all(
        &self,
        jobs: Vec<CopyJob<'_>>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), LoadError> {
        let mut chunks = self.plan(jobs)?;
        // Storage likes to be read in order; jobs come in the order of the model.
        chunks.sort_by_key(|chunk| {
            (
                chunk.tensor.shard_index,
                chunk.tensor.offset_bytes + chunk.offset,
            )
        });
        let bytes_done = AtomicU64::new(0);
        let mut problems: Vec<(usize, LoadProblem)> = chunks
            .into_par_iter()
            .filter_map(|chunk| {
                let chunk_bytes = chunk.destination.len() as u64;
                let job_index = chunk.job_index;
                let outcome = self.copy_chunk(chunk);
                progress(bytes_done.fetch_add(chunk_bytes, Ordering::Relaxed) + chunk_bytes);
                outcome.err().map(|problem| (job_index, problem))
            })
            .collect();
        // The chunks of a tensor are in ascending order, and the sort keeps it: of several problems
        // of a tensor the first remains.
        problems.sort_by_key(|(job_index, _)| *job_index);
        problems.dedup_by_key(|(job_index, _)| *job_index);
        fail_if_any(problems.into_iter().map(|(_, problem)| problem).collect())
    }

    /// Copies one tensor into `destination`, which must have exactly its size.
    pub fn read_into(&self, name: &str, destination: &mut [u8]) -> Result<(), LoadError> {
        self.copy_all(vec![CopyJob::whole(name.to_owned(), destination)], &|_| {})
    }

    /// The bytes of one tensor: its elements, row-major and little-endian.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let tensor = self.tensor(name).ok_or_else(|| LoadError {
            problems: vec![LoadProblem::Unknown {
                name: name.to_owned(),
            }],
        })?;
        // The file has that many bytes, so a damaged header cannot ask for more than is there.
        let mut bytes = vec![0; tensor.bytes as usize];
        self.read_into(name, &mut bytes)?;
        Ok(bytes)
    }

    fn plan<'a>(&'a self, jobs: Vec<CopyJob<'a>>) -> Result<Vec<Chunk<'a>>, LoadError> {
        let mut chunks = Vec::with_capacity(jobs.len());
        let mut problems = Vec::new();
        for (job_index, job) in jobs.into_iter().enumerate() {
            let CopyJob {
                name,
                part_from,
                destination,
            } = job;
            let destination_bytes = destination.len() as u64;
            let fits = |tensor: &TensorInfo| match part_from {
                None => tensor.bytes == destination_bytes,
                Some(start) => tensor.has_elements(start, destination_bytes),
            };
            match self.tensor(&name) {
                None => problems.push(LoadProblem::Unknown { name }),
                Some(tensor) if !fits(tensor) => {
                    let tensor_bytes = tensor.bytes;
                    problems.push(LoadProblem::Length {
                        name,
                        tensor_bytes,
                        destination_bytes,
                    });
                }
                Some(tensor) => {
                    let mut offset = part_from.unwrap_or(0);
                    let whole_units = CHUNK_BYTES - CHUNK_BYTES % tensor.unit_bytes();
                    for destination in destination.chunks_mut(whole_units) {
                        let length = destination.len() as u64;
                        chunks.push(Chunk {
                            job_index,
                            tensor,
                            offset,
                            destination,
                        });
                        offset += length;
                    }
                }
            }
        }
        fail_if_any(problems)?;
        Ok(chunks)
    }

    fn copy_chunk(&self, chunk: Chunk<'_>) -> Result<(), LoadProblem> {
        let Chunk {
            tensor,
            offset,
            destination,
            ..
        } = chunk;
        let shard = &self.shards.files[tensor.shard_index];
        read_rows(shard, tensor, offset, destination).map_err(|source| LoadProblem::Read {
            name: tensor.name.clone(),
            path: shard.path.clone(),
            source,
        })?;
        match check_finite(tensor.element_type, destination) {
            None => Ok(()),
            Some(within) => {
                // Only types with whole units have values that are not finite.
                let (numbers, bytes) = tensor.element_type.unit().unwrap_or((1, 1));
                let index = offset / bytes as u64 * numbers as u64 + within as u64;
                Err(LoadProblem::NotFinite {
                    name: tensor.name.clone(),
                    index,
                })
            }
        }
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

fn fail_if_any(problems: Vec<LoadProblem>) -> Result<(), LoadError> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(LoadError { problems })
    }
}

#[cfg(test)]
mod tests;
