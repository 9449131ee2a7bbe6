//! What the file of a cache is made of.

use std::ops::Range;

/// Says what the file is, and in which form.
const MAGIC: &[u8; 16] = b"backstop cache 1";
/// Digits of a digest: all of SHA-256.
pub(super) const DIGEST_DIGITS: usize = 64;
/// Bytes of a length and of a checksum.
const LENGTH_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
/// Parts begin at multiples of this.
const PAGE: u64 = 4096;
/// Bytes that have a checksum, but for the last ones of a part: large enough to stream, small enough for caches.
const PIECE_BYTES: usize = 4 << 20;

/// What is before the checksums: what the file is, the digest, and its length.
pub(super) const PREAMBLE_BYTES: usize = MAGIC.len() + DIGEST_DIGITS + LENGTH_BYTES;

/// A piece of a part, and where it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) part: usize,
    pub(super) within: Range<usize>,
    pub(super) offset: u64,
}

/// Where everything is in a file with parts of these lengths.
#[derive(Clone, Debug)]
pub(super) struct FileLayout {
    pub(super) pieces: Vec<Extent>,
    pub(super) bytes: u64,
}

impl FileLayout {
    pub(super) fn new(lengths: &[usize]) -> Self {
        let count: usize = lengths.iter().map(|len| len.div_ceil(PIECE_BYTES)).sum();
        let mut end = header_bytes(count) as u64;
        let mut pieces = Vec::with_capacity(count);
        for (part, &len) in lengths.iter().enumerate() {
            if len == 0 {
                continue;
            }
            let first = end.next_multiple_of(PAGE);
            for start in (0..len).step_by(PIECE_BYTES) {
                pieces.push(Extent {
                    part,
                    within: start..(start + PIECE_BYTES).min(len),
                    offset: first + start as u64,
                });
            }
            end = first + len as u64;
        }
        Self { pieces, bytes: end }
    }

    /// Bytes of the header.
    pub(super) fn header_bytes(&self) -> usize {
        header_bytes(self.pieces.len())
    }

    /// The header of a file whose pieces have these checksums.
    pub(super) fn header(&self, digest: &str, checksums: &[u32]) -> Vec<u8> {
        let mut header = Vec::with_capacity(self.header_bytes());
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(digest.as_bytes());
        header.extend_from_slice(&self.bytes.to_le_bytes());
        for checksum in checksums {
            header.extend_from_slice(&checksum.to_le_bytes());
        }
        let own = crc32fast::hash(&header);
        header.extend_from_slice(&own.to_le_bytes());
        header
    }

    /// The checksums in a header that begins as it should; `None` if it is not what was written.
    pub(super) fn checksums(&self, header: &[u8]) -> Option<Vec<u32>> {
        let (content, own) = header.split_last_chunk::<CHECKSUM_BYTES>()?;
        let is_whole = crc32fast::hash(content) == u32::from_le_bytes(*own);
        let (chunks, rest) = content.get(PREAMBLE_BYTES..)?.as_chunks::<CHECKSUM_BYTES>();
        let is_whole = is_whole && rest.is_empty() && chunks.len() == self.pieces.len();
        is_whole.then(|| {
            chunks
                .iter()
                .map(|bytes| u32::from_le_bytes(*bytes))
                .collect()
        })
    }
}

/// Whether a file that begins so is one of ours.
pub(super) fn is_ours(preamble: &[u8; PREAMBLE_BYTES]) -> bool {
    preamble.starts_with(MAGIC)
}

/// Whether it is of the weights with this digest.
pub(super) fn is_of(preamble: &[u8; PREAMBLE_BYTES], digest: &str) -> bool {
    preamble[MAGIC.len()..].starts_with(digest.as_bytes())
}

fn header_bytes(pieces: usize) -> usize {
    PREAMBLE_BYTES + (pieces + 1) * CHECKSUM_BYTES
}
