//! Which vector instructions the processor has, found out once.

mod amx;

use std::sync::OnceLock;

/// The instruction sets that CPU kernels are compiled for, weakest first. Results of one set are
/// reproducible to the last bit; between sets they differ in rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Whatever the compiler's baseline has: SSE2 on x86-64, NEON on AArch64.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI, besides all of [`Avx2`](Self::Avx2).
    Avx512,
    /// AMX tiles of BF16 numbers and of bytes, besides all of [`Avx512`](Self::Avx512).
    Amx,
}

impl InstructionSet {
    /// The strongest set that this processor has.
    pub fn detect() -> Self {
        static BEST: OnceLock<InstructionSet> = OnceLock::new();
        *BEST.get_or_init(|| {
            if amx::available() {
                Self::Amx
            } else if has_avx512() {
                Self::Avx512
            } else if has_avx2() {
                Self::Avx2
            } else {
                Self::Portable
            }
        })
    }

    /// All sets that this processor has, weakest first.
    pub fn available() -> Vec<Self> {
        let best = Self::detect();
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Amx]
            .into_iter()
            .filter(|&set| set <= best)
            .collect()
    }

    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
            Self::Amx => "AMX",
        }
    }
}

/// What the processor offers and what the kernels use, for diagnostics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Target architecture of this build, such as `x86_64`.
    pub architecture: &'static str,
    /// Relevant features found, under their usual names.
    pub detected: Vec<&'static str>,
    /// The instruction set that kernels run with.
    pub chosen: InstructionSet,
}

/// Looks at the processor.
pub fn features() -> Features {
    Features {
        architecture: std::env::consts::ARCH,
        detected: detected(),
        chosen: InstructionSet::detect(),
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Vec<&'static str> {
    [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("amx", amx::available()),
    ]
    .into_iter()
    .filter_map(|(name, present)| present.then_some(name))
    .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn has_avx512() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_set_is_the_strongest_available() {
        let available = InstructionSet::available();
        assert_eq!(available[0], InstructionSet::Portable);
        assert_eq!(available.last(), Some(&features().chosen));
    }
}
