//! The two text formats of Prometheus, chosen by what the scraper accepts.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposition {
    /// The classic format, which every scraper reads.
    PlainText,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// OpenMetrics for those who ask for it.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let asked = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.contains("application/openmetrics-text"));
        if asked {
            Self::OpenMetrics
        } else {
            Self::PlainText
        }
    }

    /// The `Content-Type` header.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::PlainText => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Brings OpenMetrics text into this format. Metrics of the same name that several models have come
    /// together: there may be one family of a name.
    pub(crate) fn render(self, openmetrics: String) -> String {
        let openmetrics = with_families_together(openmetrics);
        match self {
            Self::OpenMetrics => openmetrics,
            Self::PlainText => plain_text(&openmetrics),
        }
    }
}

/// Puts the samples of families that come again behind those of the first.
fn with_families_together(openmetrics: String) -> String {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut families: Vec<Vec<&str>> = Vec::new();
    let (mut place, mut is_again) = (0, false);
    for line in openmetrics.lines() {
        match comment(line) {
            Some(("HELP", name, _)) => {
                is_again = places.contains_key(name);
                place = *places.entry(name).or_insert_with(|| {
                    families.push(Vec::new());
                    families.len() - 1
                });
                if !is_again {
                    families[place].push(line);
                }
            }
            Some(_) if is_again => {}
            // The end mark.
            None if line.starts_with('#') => families.push(vec![line]),
            _ => families
                .get_mut(place)
                .into_iter()
                .for_each(|family| family.push(line)),
        }
    }
    let lines = families.into_iter().flatten();
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The classic format differs in two ways: a counter's comments name it with its `_total`, and
/// there is no end mark.
fn plain_text(openmetrics: &str) -> String {
    let counters: BTreeSet<&str> = openmetrics.lines().filter_map(counter_name).collect();
    let mut text = String::with_capacity(openmetrics.len() + 16 * counters.len());
    for line in openmetrics.lines().filter(|line| *line != "# EOF") {
        match comment(line) {
            Some((keyword, name, rest)) if counters.contains(name) => {
                text.push_str(&format!("# {keyword} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

fn comment(line: &str) -> Option<(&str, &str, &str)> {
    let mut words = line.strip_prefix("# ")?.splitn(3, ' ');
    Some((words.next()?, words.next()?, words.next()?))
}

fn counter_name(line: &str) -> Option<&str> {
    match comment(line)? {
        ("TYPE", name, "counter") => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_in_full_and_the_end_mark_goes() {
        let openmetrics = "# HELP a:x Things.\n# TYPE a:x counter\na:x_total{l=\"v\"} 3\n\
                           # HELP b Level.\n# TYPE b gauge\nb 1\n# EOF\n";
        let expected = "# HELP a:x_total Things.\n# TYPE a:x_total counter\na:x_total{l=\"v\"} 3\n\
                        # HELP b Level.\n# TYPE b gauge\nb 1\n";
        assert_eq!(
            Exposition::PlainText.render(openmetrics.to_owned()),
            expected
        );
        assert_eq!(
            Exposition::OpenMetrics.render(openmetrics.to_owned()),
            openmetrics
        );
    }
}
