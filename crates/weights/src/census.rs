//! Compares the tensors an architecture expects with those a checkpoint holds.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::error::Listing;
use crate::quantization::describe_quantization;
use crate::{Checkpoint, ElementType};

/// One tensor that an architecture expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Its name.
    pub name: String,
    /// Its extents. An expected `[n, 1]` may be stored as `[n]`: the bytes are the same.
    pub shape: Vec<usize>,
    /// The element types that the architecture can load.
    pub allowed: &'static [ElementType],
    /// Whether the checkpoint must have it.
    pub required: bool,
}

/// A tensor that is there but not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The tensor.
    pub name: String,
    /// What the architecture expects.
    pub expected: String,
    /// What the checkpoint has.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} is {}, expected {}",
            self.name, self.found, self.expected
        )
    }
}

/// Every difference between what an architecture expects and what a checkpoint holds.
#[derive(Clone, Debug)]
pub struct CensusError {
    /// Expected and required, but not there; with the file in which an index has it.
    pub missing: Vec<String>,
    /// There, but not expected.
    pub surplus: Vec<String>,
    /// There with another shape.
    pub misshapen: Vec<Mismatch>,
    /// There with an element type that cannot be loaded.
    pub mistyped: Vec<Mismatch>,
    /// What the checkpoint looks like. Boxed, as it is most of the error's size.
    pub summary: Box<CheckpointSummary>,
}

impl std::error::Error for CensusError {}

impl fmt::Display for CensusError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "the checkpoint does not hold the tensors of this architecture"
        )?;
        show_kind(formatter, "missing", &self.missing)?;
        show_kind(formatter, "not expected", &self.surplus)?;
        show_kind(formatter, "of another shape", &self.misshapen)?;
        show_kind(formatter, "of another element type", &self.mistyped)?;
        write!(formatter, "\n  the checkpoint has {}", self.summary)
    }
}

fn show_kind<T: fmt::Display>(
    formatter: &mut fmt::Formatter<'_>,
    kind: &str,
    items: &[T],
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(formatter, "\n  {} {kind}: {}", items.len(), Listing(items))
}

/// Checks that the checkpoint holds what is expected and nothing else.
///
/// # Errors
///
/// Lists every difference, not the first: a checkpoint of another layout shows itself by all of
/// them together.
pub fn census(checkpoint: &Checkpoint, expected: &[ExpectedTensor]) -> Result<(), CensusError> {
    let mut missing = Vec::new();
    let mut misshapen = Vec::new();
    let mut mistyped = Vec::new();
    let mut names = HashSet::with_capacity(expected.len());
    for tensor in expected {
        names.insert(tensor.name.as_str());
        let Some(found) = checkpoint.tensor(&tensor.name) else {
            if tensor.required {
                missing.push(match checkpoint.file_of_lost(&tensor.name) {
                    Some(file) => format!("{} ({file})", tensor.name),
                    None => tensor.name.clone(),
                });
            }
            continue;
        };
        if !shape_fits(&tensor.shape, &found.shape) {
            misshapen.push(Mismatch {
                name: tensor.name.clone(),
                expected: format!("{:?}", tensor.shape),
                found: format!("{:?}", found.shape),
            });
        }
        if !tensor.allowed.contains(&found.element_type) {
            let allowed: Vec<&str> = tensor
                .allowed
                .iter()
                .map(|allowed| allowed.name())
                .collect();
            mistyped.push(Mismatch {
                name: tensor.name.clone(),
                expected: allowed.join(" or "),
                found: found.element_type.to_string(),
            });
        }
    }
    let surplus: Vec<String> = checkpoint
        .tensors()
        .filter(|tensor| !names.contains(tensor.name.as_str()))
        .map(|tensor| tensor.name.clone())
        .collect();

    if missing.is_empty() && surplus.is_empty() && misshapen.is_empty() && mistyped.is_empty() {
        return Ok(());
    }
    let summary = Box::new(CheckpointSummary::of(checkpoint));
    Err(CensusError {
        missing,
        surplus,
        misshapen,
        mistyped,
        summary,
    })
}

fn shape_fits(expected: &[usize], found: &[usize]) -> bool {
    match (expected, found) {
        (&[rows, 1], &[found_rows]) => rows == found_rows,
        _ => expected == found,
    }
}

/// What a checkpoint looks like, in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSummary {
    /// The architecture in the configuration.
    pub architecture: Option<String>,
    /// The quantisation format in the configuration.
    pub quantization: String,
    /// How the experts of a mixture are stored, if there are any.
    pub experts: Option<&'static str>,
    /// Number of tensors of each element type.
    pub element_types: BTreeMap<ElementType, usize>,
    /// Number of tensors.
    pub tensor_count: usize,
    /// Size of the tensors.
    pub bytes_total: u64,
    /// Number of weight files.
    pub file_count: usize,
}

impl CheckpointSummary {
    /// Looks at the configuration and the tensors' names.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let mut element_types = BTreeMap::new();
        for tensor in checkpoint.tensors() {
            *element_types.entry(tensor.element_type).or_insert(0) += 1;
        }
        let any_name = |fits: fn(&str) -> bool| checkpoint.tensors().any(|info| fits(&info.name));
        let experts = match (any_name(is_unfused_expert), any_name(is_packed_experts)) {
            (true, false) => Some("one tensor per expert"),
            (false, true) => Some("all experts of a layer packed in one tensor"),
            (true, true) => Some("some experts packed and some not"),
            (false, false) => None,
        };
        Self {
            architecture: checkpoint.architecture().map(str::to_owned),
            quantization: describe_quantization(checkpoint.config()),
            experts,
            element_types,
            tensor_count: checkpoint.tensors().len(),
            bytes_total: checkpoint.bytes_total(),
            file_count: checkpoint.file_count(),
        }
    }
}

impl fmt::Display for CheckpointSummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types: Vec<String> = self
            .element_types
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        write!(
            formatter,
            "{} tensors ({}), {} bytes in {} file(s); architecture: {}; quantisation: {}",
            self.tensor_count,
            types.join(", "),
            self.bytes_total,
            self.file_count,
            self.architecture.as_deref().unwrap_or("not stated"),
            self.quantization,
        )?;
        match self.experts {
            Some(experts) => write!(formatter, "; experts: {experts}"),
            None => Ok(()),
        }
    }
}

/// The part of the name that follows the part `experts`.
fn part_after_experts(name: &str) -> Option<&str> {
    let mut parts = name.split('.');
    parts
        .find(|part| *part == "experts")
        .and_then(|_| parts.next())
}

fn is_unfused_expert(name: &str) -> bool {
    part_after_experts(name).is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_packed_experts(name: &str) -> bool {
    part_after_experts(name).is_some_and(|part| !part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
