//! Why a program could not be run.

/// A layer that this machine lacks. Nothing is run without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("programs cannot be contained here, so none is run: {layer}: {reason}; {advice}")]
pub struct Unavailable {
    /// Which.
    pub layer: String,
    /// What the kernel said.
    pub reason: String,
    /// What to do.
    pub advice: String,
}

/// Why a program was not run, or nobody knows how it ended.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// What was asked for cannot be.
    #[error("{0}")]
    Job(String),
    /// The program is not there, or cannot be executed.
    #[error("{program} cannot be executed in isolation: {reason}")]
    Program {
        /// Its name.
        program: String,
        /// What the kernel said.
        reason: String,
    },
    /// A layer could not be put around it.
    #[error("the program was not run: {layer}: {reason}")]
    Layer {
        /// Which.
        layer: String,
        /// What the kernel said.
        reason: String,
    },
    /// What contains the program ended without a word.
    #[error("what contains the program ended by itself ({0}); is this machine out of memory?")]
    Lost(String),
    /// A call of this process failed.
    #[error("the program cannot be contained: {0}")]
    Machine(#[from] std::io::Error),
}
