//! Settings of models that make vectors and scores.

use std::path::PathBuf;

use clap::Args;

/// Models that make vectors and scores, beside MODEL or without it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Embeddings and ranking")]
pub(crate) struct EncoderArgs {
    /// Directory of a model that makes embeddings, for /v1/embeddings. With it or --reranker-model, and without
    /// MODEL, no model is served that generates.
    #[arg(long, env = "BACKSTOP_EMBEDDING_MODEL", value_name = "DIRECTORY")]
    pub(crate) embedding_model: Option<PathBuf>,

    /// Name under which requests may ask for --embedding-model; repeatable, and `*` answers to any name.
    /// [default: that of the directory]
    #[arg(
        long,
        env = "BACKSTOP_SERVED_EMBEDDING_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(crate) served_embedding_name: Vec<String>,

    /// Directory of a model that says how well documents answer a query, for /v1/rerank.
    #[arg(long, env = "BACKSTOP_RERANKER_MODEL", value_name = "DIRECTORY")]
    pub(crate) reranker_model: Option<PathBuf>,

    /// Name under which requests may ask for --reranker-model; repeatable, and `*` answers to any name.
    /// [default: that of the directory]
    #[arg(
        long,
        env = "BACKSTOP_SERVED_RERANKER_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(crate) served_reranker_name: Vec<String>,
}

impl EncoderArgs {
    /// Whether any is named.
    pub(crate) fn are_named(&self) -> bool {
        self.embedding_model.is_some() || self.reranker_model.is_some()
    }
}
