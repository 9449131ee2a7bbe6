//! Reads the header of a GGUF file, trusting nothing in it.
//!
//! The format is that of the GGUF specification (`docs/gguf.md` of ggml), versions 2 and 3, in
//! little-endian byte order. No count or length is believed before the bytes that it stands for
//! are known to be in the file, and memory grows only with bytes that were read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use backstop_kernels::BlockFormat;

use crate::ElementType;
use crate::header::{HeaderEntry, NAME_BYTES_MAX};

/// Longest header accepted; the largest vocabularies known need a fourth of it.
pub(crate) const HEADER_BYTES_MAX: u64 = 128 << 20;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
const KEY_BYTES_MAX: usize = 1024;
const DIMENSIONS_MAX: u32 = 4;
const ALIGNMENT_KEY: &str = "general.alignment";
const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 20;

/// One value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MetadataValue {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

/// What a header says.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) metadata: BTreeMap<String, MetadataValue>,
    /// In the order of the file.
    pub(crate) tensors: Vec<HeaderEntry>,
}

/// Reads the header of a file of `file_bytes`.
pub(crate) fn read_header(source: impl Read, file_bytes: u64) -> Result<Header, String> {
    let mut bytes = HeaderBytes {
        source,
        position: 0,
        end: file_bytes.min(HEADER_BYTES_MAX),
        file_bytes,
    };
    bytes.magic_and_version()?;
    let tensor_count = bytes.count("tensors", 24)?;
    let value_count = bytes.count("metadata values", 12)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..value_count {
        let key = bytes.name("a metadata key", KEY_BYTES_MAX)?;
        let value = bytes
            .value()
            .map_err(|problem| format!("metadata value {key:?}: {problem}"))?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("the metadata has {key:?} twice"));
        }
    }
    let mut tensors = Vec::new();
    for _ in 0..tensor_count {
        tensors.push(bytes.tensor()?);
    }
    let alignment = alignment(&metadata)?;
    place(&mut tensors, bytes.position, alignment, file_bytes)?;
    Ok(Header { metadata, tensors })
}

fn alignment(metadata: &BTreeMap<String, MetadataValue>) -> Result<u64, String> {
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => return Ok(ALIGNMENT_DEFAULT),
        Some(MetadataValue::Integer(alignment)) => u64::try_from(*alignment).ok(),
        Some(_) => None,
    };
    alignment
        .filter(|alignment| (1..=ALIGNMENT_MAX).contains(alignment) && alignment % 8 == 0)
        .ok_or_else(|| format!("{ALIGNMENT_KEY} is not a multiple of 8 up to {ALIGNMENT_MAX}"))
}

/// Turns offsets from the start of the data into offsets of the file. The tensors must follow one
/// another with no more between them than the alignment wants, and reach to the end of the file.
fn place(
    tensors: &mut [HeaderEntry],
    header_bytes: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<(), String> {
    if tensors.is_empty() {
        return Ok(());
    }
    let data_start = header_bytes.next_multiple_of(alignment);
    let mut names = BTreeSet::new();
    let mut end: u64 = 0;
    for tensor in tensors {
        if !names.insert(tensor.name.clone()) {
            return Err(format!("the header names tensor {:?} twice", tensor.name));
        }
        let expected = end.next_multiple_of(alignment);
        if tensor.offset_bytes != expected {
            return Err(format!(
                "tensor {:?} begins at byte {} of the data, expected {expected}",
                tensor.name, tensor.offset_bytes
            ));
        }
        end = expected
            .checked_add(tensor.length_bytes)
            .filter(|&end| end <= file_bytes)
            .ok_or_else(|| {
                format!(
                    "truncated: tensor {:?} reaches beyond the file's {file_bytes} bytes",
                    tensor.name
                )
            })?;
        tensor.offset_bytes = data_start + expected;
    }
    let needed = data_start + end;
    if needed > file_bytes {
        return Err(format!(
            "truncated: the tensors need {needed} bytes and the file has {file_bytes}"
        ));
    }
    if file_bytes > needed.next_multiple_of(alignment) {
        return Err(format!(
            "the tensors end at byte {needed} but the file has {file_bytes}"
        ));
    }
    Ok(())
}

/// The header's bytes, each asked for only after it is known to be there.
struct HeaderBytes<R> {
    source: R,
    position: u64,
    /// Neither the file nor any real header goes on from here.
    end: u64,
    file_bytes: u64,
}

impl<R: Read> HeaderBytes<R> {
    fn magic_and_version(&mut self) -> Result<(), String> {
        if &self.array::<4>()? != MAGIC {
            return Err("not a GGUF file: it does not begin with GGUF".to_owned());
        }
        let version = self.u32()?;
        if VERSIONS.contains(&version) {
            Ok(())
        } else if VERSIONS.contains(&version.swap_bytes()) {
            Err("the file is big-endian; only little-endian GGUF is supported".to_owned())
        } else {
            Err(format!(
                "GGUF version {version} is not supported; supported are 2 and 3"
            ))
        }
    }

    /// Checks that `count` bytes more are there.
    fn claim(&self, count: u64) -> Result<(), String> {
        match self.position.checked_add(count) {
            Some(end) if end <= self.end => Ok(()),
            _ if self.end < self.file_bytes => Err(format!(
                "the header is longer than the {HEADER_BYTES_MAX} bytes that are accepted"
            )),
            _ => Err(format!(
                "truncated: {count} bytes are wanted at byte {} and the file has {}",
                self.position, self.file_bytes
            )),
        }
    }

    fn array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], String> {
        self.claim(SIZE as u64)?;
        let mut array = [0; SIZE];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn fill(&mut self, destination: &mut [u8]) -> Result<(), String> {
        self.source
            .read_exact(destination)
            .map_err(|error| format!("cannot read byte {}: {error}", self.position))?;
        self.position += destination.len() as u64;
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things of which each takes at least `bytes_each`.
    fn count(&mut self, what: &str, bytes_each: u64) -> Result<u64, String> {
        let count = self.u64()?;
        let bytes = count.saturating_mul(bytes_each);
        self.claim(bytes)
            .map_err(|_| format!("{count} {what} do not fit into the file"))?;
        Ok(count)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.count("bytes of a text", 1)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|error| format!("a text is not UTF-8: {error}"))
    }

    fn name(&mut self, what: &str, bytes_max: usize) -> Result<String, String> {
        let name = self
            .text()
            .map_err(|problem| format!("{what}: {problem}"))?;
        if name.is_empty() || name.len() > bytes_max {
            let length = name.len();
            return Err(format!(
                "{what} has {length} bytes; 1 to {bytes_max} are accepted"
            ));
        }
        Ok(name)
    }

    fn value(&mut self) -> Result<MetadataValue, String> {
        let kind = self.u32()?;
        match kind {
            KIND_BOOL => Ok(MetadataValue::Bool(self.bool()?)),
            KIND_TEXT => Ok(MetadataValue::Text(self.text()?)),
            KIND_ARRAY => self.list(),
            KIND_F32 | KIND_F64 => Ok(MetadataValue::Float(self.float(kind)?)),
            _ => Ok(MetadataValue::Integer(self.integer(kind)?)),
        }
    }

    fn bool(&mut self) -> Result<bool, String> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("{other} is neither true nor false")),
        }
    }

    fn integer(&mut self, kind: u32) -> Result<i128, String> {
        Ok(match kind {
            KIND_U8 => u8::from_le_bytes(self.array()?).into(),
            KIND_I8 => i8::from_le_bytes(self.array()?).into(),
            KIND_U16 => u16::from_le_bytes(self.array()?).into(),
            KIND_I16 => i16::from_le_bytes(self.array()?).into(),
            KIND_U32 => u32::from_le_bytes(self.array()?).into(),
            KIND_I32 => i32::from_le_bytes(self.array()?).into(),
            KIND_U64 => u64::from_le_bytes(self.array()?).into(),
            KIND_I64 => i64::from_le_bytes(self.array()?).into(),
            _ => return Err(format!("type {kind} is unknown")),
        })
    }

    fn float(&mut self, kind: u32) -> Result<f64, String> {
        if kind == KIND_F64 {
            return Ok(f64::from_le_bytes(self.array()?));
        }
        let value = f32::from_le_bytes(self.array()?);
        // The decimal number that was meant: 1e-5, not 0.00000999999974.
        Ok(value.to_string().parse().unwrap_or(f64::from(value)))
    }

    fn list(&mut self) -> Result<MetadataValue, String> {
        let kind = self.u32()?;
        let bytes_each = match kind {
            KIND_U8 | KIND_I8 | KIND_BOOL => 1,
            KIND_U16 | KIND_I16 => 2,
            KIND_U32 | KIND_I32 | KIND_F32 => 4,
            KIND_U64 | KIND_I64 | KIND_F64 | KIND_TEXT => 8,
            KIND_ARRAY => return Err("lists of lists are not supported".to_owned()),
            _ => return Err(format!("type {kind} is unknown")),
        };
        let count = self.count("elements of a list", bytes_each)?;
        match kind {
            KIND_TEXT => self.elements(count, Self::text).map(MetadataValue::Texts),
            KIND_F32 | KIND_F64 => self
                .elements(count, |bytes| bytes.float(kind))
                .map(MetadataValue::Floats),
            KIND_BOOL => self
                .elements(count, |bytes| bytes.bool().map(i64::from))
                .map(MetadataValue::Integers),
            _ => self
                .elements(count, |bytes| {
                    let element = bytes.integer(kind)?;
                    i64::try_from(element).map_err(|_| format!("{element} is too large"))
                })
                .map(MetadataValue::Integers),
        }
    }

    /// Grows with what was read, not with what was announced.
    fn elements<T>(
        &mut self,
        count: u64,
        read: impl Fn(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(read(self)?);
        }
        Ok(elements)
    }

    /// One tensor's entry; its offset is still that from the start of the data.
    fn tensor(&mut self) -> Result<HeaderEntry, String> {
        let name = self.name("a tensor's name", NAME_BYTES_MAX)?;
        self.tensor_behind(&name)
            .map_err(|problem| format!("tensor {name:?}: {problem}"))
    }

    fn tensor_behind(&mut self, name: &str) -> Result<HeaderEntry, String> {
        let dimensions = self.u32()?;
        if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(format!(
                "it has {dimensions} dimensions; 1 to {DIMENSIONS_MAX} are accepted"
            ));
        }
        let mut extents = Vec::new();
        for _ in 0..dimensions {
            extents.push(self.u64()?);
        }
        let element_type = element_type(self.u32()?)?;
        let offset_bytes = self.u64()?;
        let (numbers, bytes) = element_type
            .unit()
            .ok_or_else(|| format!("{element_type} is not supported"))?;
        if !extents[0].is_multiple_of(numbers as u64) {
            return Err(format!(
                "rows of {} numbers are no whole blocks of {numbers}, as {element_type} has them",
                extents[0]
            ));
        }
        let total = extents
            .iter()
            .try_fold(1_u64, |product, &extent| product.checked_mul(extent))
            .map(|total| total / numbers as u64)
            .and_then(|blocks| blocks.checked_mul(bytes as u64))
            .filter(|&bytes| bytes <= self.file_bytes)
            .ok_or_else(|| format!("its shape {extents:?} is larger than the file"))?;
        // The file has the fastest dimension first.
        let shape = extents.iter().rev().map(|&extent| extent as usize);
        Ok(HeaderEntry {
            name: name.to_owned(),
            element_type,
            shape: shape.collect(),
            offset_bytes,
            length_bytes: total,
        })
    }
}

const KIND_U8: u32 = 0;
const KIND_I8: u32 = 1;
const KIND_U16: u32 = 2;
const KIND_I16: u32 = 3;
const KIND_U32: u32 = 4;
const KIND_I32: u32 = 5;
const KIND_F32: u32 = 6;
const KIND_BOOL: u32 = 7;
const KIND_TEXT: u32 = 8;
const KIND_ARRAY: u32 = 9;
const KIND_U64: u32 = 10;
const KIND_I64: u32 = 11;
const KIND_F64: u32 = 12;

/// The element type with this number in `enum ggml_type`.
fn element_type(kind: u32) -> Result<ElementType, String> {
    if let Some(format) = BlockFormat::of_gguf(kind) {
        return Ok(match format {
            BlockFormat::F16 => ElementType::F16,
            format => ElementType::Block(format),
        });
    }
    Ok(match kind {
        0 => ElementType::F32,
        24 => ElementType::I8,
        25 => ElementType::I16,
        26 => ElementType::I32,
        27 => ElementType::I64,
        28 => ElementType::F64,
        30 => ElementType::BF16,
        _ => {
            let known = UNSUPPORTED.iter().find(|(number, _)| *number == kind);
            return Err(match known {
                Some((_, name)) => format!(
                    "{name} is not supported; supported are F32, BF16, {}",
                    block_names()
                ),
                None => format!("its type {kind} is unknown"),
            });
        }
    })
}

/// Formats of `enum ggml_type` that are known by name alone.
const UNSUPPORTED: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
];

fn block_names() -> String {
    let names: Vec<&str> = BlockFormat::IN_GGUF
        .iter()
        .map(|format| format.facts().name)
        .collect();
    names.join(", ")
}
