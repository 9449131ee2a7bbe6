//! The answer of `GET /v1/models`, with the limits that gateways discover there, and what each model is for.
//!
//! One answer serves the readers of both APIs: their fields do not collide.

use serde::Serialize;

const SECONDS_PER_DAY: u64 = 86_400;

/// All models that the server serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelList {
    object: &'static str,
    has_more: bool,
    first_id: Option<String>,
    last_id: Option<String>,
    data: Vec<ModelCard>,
}

impl ModelList {
    /// A list of `models`.
    pub fn new(models: Vec<ModelCard>) -> Self {
        Self {
            object: "list",
            has_more: false,
            first_id: models.first().map(|model| model.id.clone()),
            last_id: models.last().map(|model| model.id.clone()),
            data: models,
        }
    }
}

/// One model under one of its served names; also the answer of `GET /v1/models/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelCard {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: String,
    parent: Option<String>,
    max_model_len: u32,
    context_length: u32,
    max_input_tokens: u32,
    max_output_tokens: u32,
    // Anthropic's names.
    #[serde(rename = "type")]
    kind: &'static str,
    display_name: String,
    created_at: String,
    lifecycle: &'static str,
    max_tokens: u32,
    task: ModelTask,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
    provenance: ModelOrigin,
}

/// Where a model comes from, and what exactly it is. What is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelOrigin {
    /// Where it is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The commit there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The licence of its weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// The digest of its weights, as the header `x-backstop-model` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// SHA-256 of the tokenizer's file, unless it is a part of the weights' file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// SHA-256 of the text of the chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelTask {
    /// It writes answers.
    Generate,
    /// It makes vectors of texts.
    Embed,
    /// It says how well documents answer a query.
    Rerank,
}

impl ModelCard {
    /// The model `root` under the name `id`, served since `created_s` (seconds since 1970).
    /// Prompt and answer share `context_length`; `max_output_tokens` bounds the answer alone.
    pub fn new(
        id: String,
        root: String,
        created_s: u64,
        context_length: u32,
        max_output_tokens: u32,
    ) -> Self {
        let max_output_tokens = max_output_tokens.min(context_length);
        Self {
            display_name: id.clone(),
            id,
            object: "model",
            created: created_s,
            owned_by: "backstop",
            root,
            parent: None,
            max_model_len: context_length,
            context_length,
            // The answer needs room for one token.
            max_input_tokens: context_length.saturating_sub(1),
            max_output_tokens,
            kind: "model",
            created_at: rfc3339(created_s),
            lifecycle: "active",
            max_tokens: max_output_tokens,
            task: ModelTask::Generate,
            dimensions: None,
            provenance: ModelOrigin::default(),
        }
    }

    /// Says where the model comes from.
    pub fn from(self, provenance: ModelOrigin) -> Self {
        Self { provenance, ..self }
    }

    /// As [`ModelCard::new`], of a model that takes `max_tokens` and answers with vectors of so many
    /// dimensions, or with a score.
    pub fn of_encoder(
        id: String,
        root: String,
        created_s: u64,
        max_tokens: u32,
        dimensions: Option<u32>,
    ) -> Self {
        Self {
            max_input_tokens: max_tokens,
            task: match dimensions {
                Some(_) => ModelTask::Embed,
                None => ModelTask::Rerank,
            },
            dimensions,
            ..Self::new(id, root, created_s, max_tokens, 0)
        }
    }
}

/// A moment, in seconds since 1970, as RFC 3339 writes it in UTC.
pub fn rfc3339(seconds: u64) -> String {
    // Years are counted from March on, so that a leap day is the last of its year, and in eras of
    // 400 years, which all have the same number of days (Howard Hinnant's `civil_from_days`).
    let days = seconds / SECONDS_PER_DAY + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let second = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400 + 86_399), "2000-02-29T23:59:59Z");
        assert_eq!(rfc3339(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(rfc3339(1_735_689_599), "2024-12-31T23:59:59Z");
    }
}
