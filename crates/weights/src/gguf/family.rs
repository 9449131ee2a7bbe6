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
    /// What keeps numbers in bounds between blocks.
    pub norm: GgufNorm,
    /// The configuration's name for the width of MLPs that are no experts.
    pub feed_forward: &'static str,
    /// What its files call tensors otherwise: behind `blk.N.`, and behind `model.layers.N.`; both with their kind (`.weight`), or both
    /// without.
    pub names: &'static [(&'static str, &'static str)],
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
            norm: GgufNorm::Rms,
            feed_forward: "intermediate_size",
            names: &[],
            experts: None,
            fields: &[],
        }
    }
}

/// Which norms the models of a family have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufNorm {
    /// RMSNorm.
    Rms,
    /// RMSNorm where a file has an epsilon for it, or else LayerNorm.
    RmsOrLayer,
}

/// What checkpoints call the experts of a layer.
#[derive(Clone, Copy, Debug)]
pub struct GgufExperts {
    /// Where in a layer they are.
    pub module: &'static str,
    /// Where in the module the router is.
    pub router: &'static str,
    /// Gate, up and down.
    pub projections: [&'static str; 3],
    /// Where in the module are the experts that every token passes through, if a family has some.
    pub shared: Option<&'static str>,
}

impl GgufExperts {
    /// Experts as most checkpoints call them, without shared ones.
    pub const USUAL: Self = Self {
        module: "mlp",
        router: "gate",
        projections: ["gate_proj", "up_proj", "down_proj"],
        shared: None,
    };
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
    /// An integer that files may lack, which is the same as 0.
    IntegerUnlessZero {
        /// The file's name for it.
        key: &'static str,
        /// The configuration's.
        field: &'static str,
    },
    /// True or false; false if it is not there.
    Flag {
        /// The file's name for it.
        key: &'static str,
        /// The configuration's.
        field: &'static str,
    },
    /// What is true of all models and stands in no file.
    True(&'static str),
    /// A number that must be this one, or not be there.
    Only {
        /// The file's name for it.
        key: &'static str,
        /// What is computed with.
        number: f64,
    },
    /// What shapes of tensors say as well.
    Inert(&'static str),
    /// How a router scores experts, by a number of `llama_expert_gating_func_type`: the softmax or the sigmoid.
    RouterScores {
        /// The configuration's name for it.
        field: &'static str,
        /// Where a file does not say it.
        default: &'static str,
    },
    /// YaRN's ramp begins and ends between dimensions, which files do not say.
    RampNotRounded,
    /// Which layers slide: a list, or of so many layers all but one.
    SlidingLayers {
        /// Layers of which one does not slide, where a file does not say it.
        period: u32,
        /// That one is the first of them, and not the last.
        full_first: bool,
    },
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
