//! Settings of what must be true of a model's files before they are used.

use std::path::PathBuf;

use clap::Args;

/// What must be true of a model's files before any of them is used.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct IntegrityArgs {
    /// Compare every file with the SHA-256 digest in the model's manifest before any is used. Sizes are always
    /// compared.
    #[arg(long, env = "BACKSTOP_VERIFY")]
    pub(crate) verify: bool,

    /// PEM file with a public key (ECDSA, P-256 or P-384) or with certificates: a model is used only if its files are
    /// those of a signature by that key, or by a certificate under these, as OpenSSF model-signing makes it.
    #[arg(long, env = "BACKSTOP_REQUIRE_SIGNATURE", value_name = "PEM")]
    pub(crate) require_signature: Option<PathBuf>,

    /// The signature that --require-signature asks for. [default: model.sig in the model's directory]
    #[arg(
        long,
        env = "BACKSTOP_SIGNATURE",
        value_name = "FILE",
        requires = "require_signature"
    )]
    pub(crate) signature: Option<PathBuf>,
}

/// A signature, and by whom it must be.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SignatureArgs {
    /// PEM file with a public key (ECDSA, P-256 or P-384) or with certificates: the files must be those of a signature
    /// by that key, or by a certificate under these, as OpenSSF model-signing makes it. [default: the digests of the
    /// manifest alone]
    #[arg(long, visible_alias = "certificate", value_name = "PEM")]
    pub(crate) key: Option<PathBuf>,

    /// The signature. [default: model.sig in the model's directory]
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) signature: Option<PathBuf>,
}
