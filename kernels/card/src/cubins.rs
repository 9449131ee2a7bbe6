//! The compiled kernels, as `build.rs` chose them, and what they say about themselves.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The kernels of one `kernels/cuda/*.cu`.
pub struct Cubin {
    /// The file's name without its extension.
    pub name: &'static str,
    /// The repository has the cubin of the present sources.
    pub committed: bool,
    /// The ELF file for the card.
    pub image: &'static [u8],
}

/// All compiled kernels.
pub static CUBINS: &[Cubin] = include!(concat!(env!("OUT_DIR"), "/cubins.rs"));

/// Environment variable, in builds with the feature `replaceable-cubins`: a directory whose cubins
/// are loaded instead of those of the same names here.
pub const DIRECTORY_VARIABLE: &str = "BACKSTOP_CUBINS";

/// Names of the cubins that are loaded from elsewhere.
pub fn replaced() -> Vec<&'static str> {
    let names = CUBINS.iter().filter(|cubin| cubin.replacement().is_some());
    names.map(|cubin| cubin.name).collect()
}

/// How a kernel is to be launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFacts {
    /// Its name.
    pub name: String,
    /// Size of its arguments.
    pub argument_bytes: usize,
    /// Threads of a block.
    pub threads: u32,
}

/// A cubin that is not laid out as the compiler's are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the compiled kernels are damaged: {0}")]
pub struct Malformed(&'static str);

/// `e_machine` of ELF files for NVIDIA cards.
const MACHINE_CUDA: u16 = 190;

// Attributes of kernels: a byte that tells how the value is stored, then one of these. Of the four
// ways to store one, only the last takes more than the two bytes that follow.
const SIZED_VALUE: u8 = 4;
const MAX_THREADS: u8 = 0x05;
const ARGUMENT_BYTES: u8 = 0x19;

impl Cubin {
    /// What is loaded in its place.
    fn replacement(&self) -> Option<PathBuf> {
        if !cfg!(feature = "replaceable-cubins") {
            return None;
        }
        let directory = std::env::var_os(DIRECTORY_VARIABLE)?;
        let path = Path::new(&directory).join(format!("{}.cubin", self.name));
        path.is_file().then_some(path)
    }

    /// The image to load, which is never given back: at most once for each opened card.
    pub fn chosen(&self) -> io::Result<Self> {
        let image = match self.replacement() {
            Some(path) => aligned(&fs::read(path)?),
            None => self.image,
        };
        Ok(Self { image, ..*self })
    }

    /// The kernels in it.
    pub fn kernels(&self) -> Result<Vec<KernelFacts>, Malformed> {
        let mut kernels = Vec::new();
        for (name, content) in sections(self.image)? {
            if let Some(name) = name.strip_prefix(".nv.info.") {
                kernels.push(kernel(name, content)?);
            }
        }
        Ok(kernels)
    }
}

/// The bytes where their tables can be read in place.
fn aligned(bytes: &[u8]) -> &'static [u8] {
    const ALIGNMENT: usize = 16;
    let memory = vec![0; bytes.len() + ALIGNMENT].leak();
    let offset = memory.as_ptr().align_offset(ALIGNMENT);
    let image = &mut memory[offset..][..bytes.len()];
    image.copy_from_slice(bytes);
    image
}

/// Names and contents of an ELF file's sections (64 bits, little-endian).
fn sections(image: &[u8]) -> Result<Vec<(&str, &[u8])>, Malformed> {
    if image.get(..6) != Some(b"\x7fELF\x02\x01") || u16_at(image, 18)? != MACHINE_CUDA {
        return Err(Malformed("not an ELF file for a card"));
    }
    let (table, count) = (u64_at(image, 40)?, u16_at(image, 60)?);
    let header = |index: u16| table + 64 * usize::from(index);
    let content = |header| {
        slice(
            image,
            u64_at(image, header + 24)?,
            u64_at(image, header + 32)?,
        )
    };
    let names = content(header(u16_at(image, 62)?))?;
    let mut sections = Vec::new();
    for header in (0..count).map(header) {
        // Sections without bytes in the file, such as shared memory, may claim any length.
        const NO_BITS: u32 = 8;
        if u32_at(image, header + 4)? == NO_BITS {
            continue;
        }
        let name = names.get(u32_at(image, header)? as usize..);
        let name = name.and_then(|rest| rest.split(|&byte| byte == 0).next());
        let name = name.and_then(|name| str::from_utf8(name).ok());
        sections.push((
            name.ok_or(Malformed("a section has no name"))?,
            content(header)?,
        ));
    }
    Ok(sections)
}

/// Reads a kernel's attributes.
fn kernel(name: &str, mut attributes: &[u8]) -> Result<KernelFacts, Malformed> {
    let (mut argument_bytes, mut threads) = (None, None);
    while let [storage, attribute, rest @ ..] = attributes {
        let value = u16_at(rest, 0)?;
        let long = if *storage == SIZED_VALUE {
            usize::from(value)
        } else {
            0
        };
        match *attribute {
            ARGUMENT_BYTES => argument_bytes = Some(usize::from(value)),
            MAX_THREADS => threads = Some(u32_at(rest, 2)?),
            _ => {}
        }
        attributes = rest
            .get(2 + long..)
            .ok_or(Malformed("an attribute is cut off"))?;
    }
    Ok(KernelFacts {
        name: name.to_owned(),
        argument_bytes: argument_bytes.ok_or(Malformed("a kernel does not say its arguments"))?,
        threads: threads.ok_or(Malformed("a kernel does not say its threads"))?,
    })
}

fn slice(bytes: &[u8], start: usize, len: usize) -> Result<&[u8], Malformed> {
    let range = bytes.get(start..).and_then(|rest| rest.get(..len));
    range.ok_or(Malformed("it is cut off"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = slice(bytes, at, 2)?;
    Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    Ok(u32::from(u16_at(bytes, at)?) | u32::from(u16_at(bytes, at + 2)?) << 16)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let value = u64::from(u32_at(bytes, at)?) | u64::from(u32_at(bytes, at + 4)?) << 32;
    // What does not fit is behind the end of every file.
    Ok(usize::try_from(value).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cubin_is_read_and_no_name_is_used_twice() {
        let mut names = BTreeSet::new();
        for cubin in CUBINS {
            let kernels = cubin.kernels().unwrap();
            assert!(!kernels.is_empty(), "{}", cubin.name);
            for kernel in kernels {
                assert!(kernel.argument_bytes > 0, "{}", kernel.name);
                assert_eq!(kernel.threads % 32, 0, "{}", kernel.name);
                assert!((32..=1024).contains(&kernel.threads), "{}", kernel.name);
                assert!(names.insert(kernel.name.clone()), "{} twice", kernel.name);
            }
        }
    }

    #[test]
    fn a_cubin_from_elsewhere_is_read_like_the_one_built_in() {
        for cubin in CUBINS {
            let image = aligned(cubin.image);
            assert!(image.as_ptr().addr().is_multiple_of(16), "{}", cubin.name);
            let copy = Cubin { image, ..*cubin };
            assert_eq!(copy.kernels().unwrap(), cubin.kernels().unwrap());
        }
        if !cfg!(feature = "replaceable-cubins") {
            assert_eq!(replaced(), [""; 0]);
        }
    }

    #[test]
    fn what_is_no_cubin_is_an_error() {
        for image in [&b""[..], b"\x7fELF", &[0x7f; 100]] {
            assert!(sections(image).is_err());
        }
    }

    #[test]
    fn a_cubin_cut_off_is_an_error() {
        for cubin in CUBINS {
            // The tables of sections are in the last half.
            let step = cubin.image.len() / 97 + 1;
            for len in (0..cubin.image.len() / 2).step_by(step) {
                let image = &cubin.image[..len];
                assert!(sections(image).is_err(), "{len} bytes of {}", cubin.name);
            }
        }
    }
}
