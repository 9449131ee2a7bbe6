//! What tokens cost here, by measured throughput and the machine's cost in an hour, and what others charge for the same tokens.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::speed::Speed;
use crate::QualifyError;

const PRICES: &str = include_str!("prices.toml");
const PRICES_BYTES_MAX: u64 = 1 << 20;
const PRICES_MAX: usize = 200;
const SECONDS_AN_HOUR: f64 = 3600.0;
const MILLION: f64 = 1e6;

/// A provider's list price, per million tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    pub(crate) provider: String,
    pub(crate) model: String,
    /// Of prompts.
    pub(crate) input: f64,
    /// Of answers.
    pub(crate) output: f64,
    pub(crate) currency: String,
    /// When the source looked.
    pub(crate) as_of: String,
    pub(crate) source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceList {
    prices: Vec<Price>,
}

/// The list in a file, or the one that comes along.
pub(super) fn prices(path: Option<&Path>) -> Result<Vec<Price>, QualifyError> {
    let Some(path) = path else {
        return parse(PRICES).map_err(QualifyError::new);
    };
    let text = backstop_input::read_text_file(path, PRICES_BYTES_MAX)
        .map_err(|error| QualifyError::at(path, error))?;
    parse(&text).map_err(|error| QualifyError::at(path, error))
}

fn parse(text: &str) -> Result<Vec<Price>, String> {
    let list: PriceList = toml::from_str(text).map_err(|error| error.to_string())?;
    if list.prices.len() > PRICES_MAX {
        return Err(format!("it has more than {PRICES_MAX} prices"));
    }
    let is_price = |value: f64| value.is_finite() && value >= 0.0;
    match list
        .prices
        .iter()
        .find(|price| !is_price(price.input) || !is_price(price.output))
    {
        Some(price) => Err(format!("{}: a price must not be below 0", price.model)),
        None => Ok(list.prices),
    }
}

/// What tokens cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) hourly: f64,
    pub(crate) currency: String,
    /// Tokens of prompts and of answers in an hour, at the highest load at which nearly all was answered.
    pub(crate) input_tokens_an_hour: f64,
    pub(crate) output_tokens_an_hour: f64,
    /// Where that was measured.
    pub(crate) at_load: String,
    /// All cost over all tokens, per million.
    pub(crate) per_million_tokens: f64,
    /// All cost over the answers' tokens, per million.
    pub(crate) per_million_output_tokens: f64,
    pub(crate) others: Vec<Comparison>,
}

/// What another provider charges.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    #[serde(flatten)]
    pub(crate) price: Price,
    /// For the tokens of that hour; none in another currency.
    pub(crate) same_tokens: Option<f64>,
    /// That over the machine's cost: above 1, the machine is cheaper when it is busy.
    pub(crate) ratio: Option<f64>,
}

impl Cost {
    /// None without a benchmark that has throughput.
    pub(super) fn of(hourly: f64, currency: &str, speed: &Speed, prices: &[Price]) -> Option<Self> {
        let point = speed.best()?;
        let (input, output) = (point.input_tokens_per_s?, point.output_tokens_per_s?);
        let (input, output) = (input * SECONDS_AN_HOUR, output * SECONDS_AN_HOUR);
        if output <= 0.0 {
            return None;
        }
        let compare = |price: &Price| {
            let same = price.currency.eq_ignore_ascii_case(currency);
            let charged = (input * price.input + output * price.output) / MILLION;
            let same_tokens = same.then_some(charged);
            Comparison {
                price: price.clone(),
                same_tokens,
                ratio: same_tokens.map(|charged| charged / hourly),
            }
        };
        Some(Self {
            hourly,
            currency: currency.to_uppercase(),
            input_tokens_an_hour: input,
            output_tokens_an_hour: output,
            at_load: point.load_text(),
            per_million_tokens: hourly / (input + output) * MILLION,
            per_million_output_tokens: hourly / output * MILLION,
            others: prices.iter().map(compare).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::speed::Point;
    use super::*;

    #[test]
    fn tokens_cost_what_the_machine_costs_while_it_makes_them() {
        let point = Point {
            load: 8.0,
            input_tokens_per_s: Some(3000.0),
            output_tokens_per_s: Some(1000.0),
            ..Point::default()
        };
        let speed = Speed {
            points: vec![point],
            ..Speed::default()
        };
        let price = |currency: &str| Price {
            provider: "P".into(),
            model: "M".into(),
            input: 2.0,
            output: 10.0,
            currency: currency.into(),
            as_of: "2026-01-01".into(),
            source: "s".into(),
        };
        let cost = Cost::of(3.6, "usd", &speed, &[price("USD"), price("EUR")]).unwrap();
        assert!((cost.per_million_tokens - 0.25).abs() < 1e-9);
        assert!((cost.per_million_output_tokens - 1.0).abs() < 1e-9);
        // 10.8 million at 2, and 3.6 million at 10.
        assert!((cost.others[0].same_tokens.unwrap() - 57.6).abs() < 1e-9);
        assert!((cost.others[0].ratio.unwrap() - 16.0).abs() < 1e-9);
        assert_eq!(cost.others[1].ratio, None);
        assert!(Cost::of(1.0, "USD", &Speed::default(), &[]).is_none());
    }

    #[test]
    fn the_list_that_comes_along_says_where_it_is_from() {
        for price in prices(None).unwrap() {
            assert!(
                price.source.contains("https://") && price.as_of.len() == 10,
                "{price:?}"
            );
        }
        let wrong = PRICES.replacen("input = 4.00", "input = -4.00", 1);
        assert!(parse(&wrong).unwrap_err().contains("below 0"));
    }
}
