//! Embeddings and relevance scores, by encoders of candle-transformers.
