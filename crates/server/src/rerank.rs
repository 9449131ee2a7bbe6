//! `POST /v1/rerank`, `/v2/rerank` and `/rerank`: how well documents answer a query, as Cohere, Jina and vLLM
//! have it.

use backstop_protocol::{
    ApiError, EncoderUsage, RankedDocument, Ranking, ResponseStamp, ValidRerankRequest,
};

use crate::encoders::{Cut, Encodable, EncoderTask, Encoding, Tokenizing, tokens_of};
use crate::reply;
use crate::server::Server;
use crate::stamp::stamp;

/// What one request wants of the scores.
pub(crate) struct Rerank {
    stamp: ResponseStamp,
    /// What is to be repeated; empty if nothing is.
    documents: Vec<String>,
    top_n: usize,
    usage: EncoderUsage,
}

impl Encoding for Rerank {
    fn prepare(server: &Server, body: &[u8]) -> Result<Encodable<Self>, ApiError> {
        let request = ValidRerankRequest::from_bytes(body)?;
        let (encoder, name) = server.encoder_for(EncoderTask::Rerank, request.model)?;
        let cut = Cut {
            whole: request.truncate_to,
            document: request.max_tokens_per_doc,
        };
        let mut tokenizing = Tokenizing::new(encoder);
        let frame = tokenizing.query(&request.query, cut)?;
        let documents = request.documents.iter().enumerate();
        let inputs = documents.map(|(index, document)| {
            let path = || ValidRerankRequest::path(index);
            tokenizing.pair(&request.query, document, &frame, cut, path)
        });
        let inputs = inputs.collect::<Result<Vec<_>, ApiError>>()?;
        let endpoint = Self {
            stamp: stamp(server, "rerank", name),
            documents: match request.return_documents {
                true => request.documents,
                false => Vec::new(),
            },
            top_n: request.top_n.unwrap_or(usize::MAX),
            usage: EncoderUsage::new(tokens_of(&inputs)),
        };
        Ok(Encodable {
            encoder: encoder.clone(),
            inputs,
            priority: request.priority,
            endpoint,
        })
    }

    fn write(mut self, rows: Vec<Vec<f32>>) -> Result<String, ApiError> {
        let scores = rows.iter().map(|row| row.first().copied());
        let scores: Option<Vec<f32>> = scores.collect();
        let scores = scores.ok_or_else(ApiError::internal)?;
        let ranked = ranked(&scores, self.top_n).into_iter();
        let results = ranked.map(|index| {
            let text = self.documents.get_mut(index).map(std::mem::take);
            RankedDocument::new(index, scores[index], text)
        });
        let ranking = Ranking {
            results: results.collect(),
            id: self.stamp.id,
            model: self.stamp.model,
            usage: self.usage,
        };
        reply::json_of(&ranking)
    }
}

/// The best documents, the best first; of equals the earlier.
fn ranked(scores: &[f32], top_n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]));
    order.truncate(top_n);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_of_equals_the_earlier() {
        assert_eq!(ranked(&[0.1, 0.9, -2.0, 0.9], 9), [1, 3, 0, 2]);
        assert_eq!(ranked(&[0.1, 0.9, -2.0, 0.9], 1), [1]);
    }
}
