//! `POST /v1/embeddings`, as OpenAI has it.

use backstop_protocol::{
    ApiError, CompletionPrompt, EmbeddingList, EncoderUsage, ValidEmbeddingRequest, VectorEncoding,
};
use backstop_types::{EncoderInput, EncoderKind};

use crate::encoders::{
    Cut, Encodable, EncoderTask, Encoding, InstalledEncoder, Tokenizing, tokens_of,
};
use crate::reply;
use crate::server::Server;

/// What one request wants of the vectors.
pub(crate) struct Embeddings {
    model_name: String,
    encoding: VectorEncoding,
    /// Numbers of a vector, if not all.
    dimensions: Option<usize>,
    usage: EncoderUsage,
}

impl Encoding for Embeddings {
    fn prepare(server: &Server, body: &[u8]) -> Result<Encodable<Self>, ApiError> {
        let mut request = ValidEmbeddingRequest::from_bytes(body)?;
        let asked = request.model.take();
        let (encoder, model_name) = server.encoder_for(EncoderTask::Embed, asked)?;
        let dimensions = check_dimensions(encoder, request.dimensions)?;
        let inputs = tokenize(encoder, &mut request)?;
        let endpoint = Self {
            model_name,
            encoding: request.encoding,
            dimensions,
            usage: EncoderUsage::new(tokens_of(&inputs)),
        };
        Ok(Encodable {
            encoder: encoder.clone(),
            inputs,
            priority: request.priority,
            endpoint,
        })
    }

    fn write(self, mut rows: Vec<Vec<f32>>) -> Result<String, ApiError> {
        if let Some(dimensions) = self.dimensions {
            rows.iter_mut().for_each(|row| shorten(row, dimensions));
        }
        let list = EmbeddingList::new(self.model_name, rows, self.encoding, self.usage);
        reply::json_of(&list)
    }
}

fn tokenize(
    encoder: &InstalledEncoder,
    request: &mut ValidEmbeddingRequest,
) -> Result<Vec<EncoderInput>, ApiError> {
    let mut tokenizing = Tokenizing::new(encoder);
    let cut = Cut {
        whole: request.truncate_to,
        document: None,
    };
    let special = request.add_special_tokens;
    let inputs = std::mem::take(&mut request.inputs);
    let made = inputs.into_iter().enumerate().map(|(index, input)| {
        let path = || request.path(index);
        match input {
            CompletionPrompt::Text(text) => tokenizing.text(&text, special, cut, path),
            CompletionPrompt::Tokens(tokens) => tokenizing.ids(tokens, cut, path),
        }
    });
    made.collect()
}

/// How many numbers are wanted, if not all; refused where a shorter vector would mean nothing.
fn check_dimensions(
    encoder: &InstalledEncoder,
    asked: Option<u32>,
) -> Result<Option<usize>, ApiError> {
    const PARAM: &str = "dimensions";
    let EncoderKind::Embedding {
        dimensions: all,
        shortens,
    } = encoder.facts().kind
    else {
        return Err(ApiError::internal());
    };
    match asked {
        None => Ok(None),
        Some(asked) if asked == all => Ok(None),
        Some(asked) if asked > all => {
            let requirement = format!("must be at most {all}, as many as the model's vectors have");
            Err(ApiError::invalid_field(PARAM, &requirement))
        }
        Some(asked) if shortens => Ok(Some(asked as usize)),
        Some(_) => {
            let explanation =
                format!("the model was not trained for shorter vectors than its own, of {all}");
            Err(ApiError::unsupported_field(PARAM, &explanation))
        }
    }
}

/// Leaves the first numbers, and brings what is left to the length one.
fn shorten(row: &mut Vec<f32>, dimensions: usize) {
    row.truncate(dimensions);
    let squares: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let length = squares.sqrt();
    if length > 0.0 {
        row.iter_mut()
            .for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_vectors_have_the_length_one_again() {
        let mut row = vec![3.0, 4.0, 5.0];
        shorten(&mut row, 2);
        assert_eq!(row, [0.6, 0.8]);
        let mut nothing = vec![0.0, 0.0, 1.0];
        shorten(&mut nothing, 2);
        assert_eq!(nothing, [0.0, 0.0]);
    }
}
