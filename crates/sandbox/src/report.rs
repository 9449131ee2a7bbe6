//! What is enforced, in words for the log.

use std::fmt;

/// How far files, programs and ports are confined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilesConfinement {
    /// All of it.
    Full {
        /// The version of Landlock's interface that the kernel has.
        abi: i32,
    },
    /// What this kernel can.
    Partial {
        /// The version of Landlock's interface that the kernel has.
        abi: i32,
        /// What it cannot confine.
        missing: Vec<&'static str>,
    },
    /// None of it.
    Absent {
        /// Why.
        reason: String,
    },
}

impl FilesConfinement {
    /// Whether anything is enforced.
    pub fn is_enforced(&self) -> bool {
        !matches!(self, Self::Absent { .. })
    }
}

impl fmt::Display for FilesConfinement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { abi } => write!(formatter, "enforced (Landlock {abi})"),
            Self::Partial { abi, missing } => {
                let missing = missing.join(", ");
                write!(
                    formatter,
                    "enforced but for {missing} (Landlock {abi}; a newer kernel can more)"
                )
            }
            Self::Absent { reason } => write!(formatter, "not enforced: {reason}"),
        }
    }
}

/// Whether calls are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallsConfinement {
    /// In all threads.
    Full,
    /// In none.
    Absent {
        /// Why.
        reason: String,
    },
}

impl CallsConfinement {
    /// Whether anything is enforced.
    pub fn is_enforced(&self) -> bool {
        matches!(self, Self::Full)
    }
}

impl fmt::Display for CallsConfinement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => formatter.write_str("enforced (seccomp)"),
            Self::Absent { reason } => write!(formatter, "not enforced: {reason}"),
        }
    }
}

/// Why a process could not be confined, where the kernel should have been able to.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Other threads would have stayed free.
    #[error("files must be confined before there are other threads; there are {0} threads")]
    Threads(usize),
    /// The kernel refused the rules for files.
    #[error("files cannot be confined: {0}")]
    Files(String),
    /// The filter of calls could not be made, or did not reach all threads.
    #[error("calls cannot be confined: {0}")]
    Calls(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_what_is_enforced_and_what_is_not() {
        let full = FilesConfinement::Full { abi: 7 };
        assert_eq!(full.to_string(), "enforced (Landlock 7)");
        let partial = FilesConfinement::Partial {
            abi: 3,
            missing: vec!["TCP", "commands to devices"],
        };
        assert_eq!(
            partial.to_string(),
            "enforced but for TCP, commands to devices (Landlock 3; a newer kernel can more)"
        );
        let reason = "there is none".to_owned();
        let absent = CallsConfinement::Absent { reason };
        assert_eq!(absent.to_string(), "not enforced: there is none");
        assert!(partial.is_enforced() && !absent.is_enforced());
    }
}
