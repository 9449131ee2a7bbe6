//! What is peculiar to a family of models in GGUF files. Whoever opens a file states it.

/// One family of models that GGUF files may hold.
#[derive(Clone, Copy, Debug)]
pub struct GgufFamily {
    /// Its name in a `config.json`.
    pub model_type: &'static str,
    /// How files write it.
    pub conventions: GgufConventions,
}

/// How GGUF files write a family of models, as far as that differs from others.
#[derive(Clone, Copy, Debug)]
pub struct GgufConventions {
    /// As `general.architecture` has it; also the prefix of its keys.
    pub name: &'static str,
    /// Its entry in `architectures` of a `config.json`.
    pub class: &'static str,
    /// Converters put the two rows of queries and keys next to each other that rotary embeddings
    /// rotate with one another.
    pub pairs_together: bool,
    /// A `config.json` says whether attention has biases.
    pub states_biases: bool,
    /// Its experts, if it has some.
    pub experts: Option<GgufExperts>,
    /// Fields of a `config.json` that other families lack.
    pub fields: &'static [GgufField],
}

impl GgufConventions {
    /// A family of dense models.
    pub const fn new(name: &'static str, class: &'static str) -> Self {
        Self {
            name,
            class,
            pairs_together: false,
            states_biases: true,
            experts: None,
            fields: &[],
        }
    }
}

/// What checkpoints call the experts of a layer.
#[derive(Clone, Copy, Debug)]
pub struct GgufExperts {
    /// Where in a layer they are.
    pub module: &'static str,
    /// Gate, up and down.
    pub projections: [&'static str; 3],
}

/// A field of a `config.json`.
#[derive(Clone, Copy, Debug)]
pub enum GgufField {
    /// An integer that files have under this key, behind the family's prefix.
    Integer {
        /// The file's name for it.
        key: &'static str,
        /// The configuration's.
        field: &'static str,
    },
    /// The same for any number.
    Number {
        /// The file's name for it.
        key: &'static str,
        /// The configuration's.
        field: &'static str,
    },
    /// What is true of all models and stands in no file.
    True(&'static str),
}

impl GgufField {
    /// An integer under this key.
    pub const fn integer(key: &'static str, field: &'static str) -> Self {
        Self::Integer { key, field }
    }

    /// A number under this key.
    pub const fn number(key: &'static str, field: &'static str) -> Self {
        Self::Number { key, field }
    }
}
