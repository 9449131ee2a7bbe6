//! What `compare` prints.

use serde::Serialize;

use super::difference::Difference;

/// All texts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// What was compared with.
    pub(super) first: String,
    /// What was compared.
    pub(super) second: String,
    /// Over all texts, weighted with their positions.
    pub(super) mean: f64,
    /// Over all texts.
    pub(super) largest: f64,
    /// One for each text.
    pub(super) texts: Vec<Difference>,
}

impl Report {
    pub(super) fn new(first: &str, second: &str, texts: Vec<Difference>) -> Self {
        let positions: usize = texts.iter().map(|text| text.positions).sum();
        let sum: f64 = texts
            .iter()
            .map(|text| text.mean * text.positions as f64)
            .sum();
        Self {
            first: first.to_owned(),
            second: second.to_owned(),
            mean: sum / positions as f64,
            largest: texts.iter().map(|text| text.largest).fold(0.0, f64::max),
            texts,
        }
    }

    /// Whether the mean difference is no larger than this.
    pub(super) fn agrees_within(&self, tolerance: f64) -> bool {
        self.mean <= tolerance
    }

    #[expect(clippy::print_stdout, reason = "the report is what the command is for")]
    pub(super) fn print(&self, json: bool) -> Result<(), String> {
        if json {
            let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
            println!("{text}");
            return Ok(());
        }
        println!("{} against {}", self.second, self.first);
        println!(
            "differences of log-probabilities: mean {:.2e}, largest {:.2e}",
            self.mean, self.largest
        );
        for (number, text) in self.texts.iter().enumerate() {
            let greedy = match text.first_other_token {
                None => "every token of the answer is the same".to_owned(),
                Some(index) => format!("token {index} of the answer would be another"),
            };
            println!(
                "text {number}: {} tokens of prompt, mean {:.2e}, largest {:.2e}, same most likely token at {} of {} \
                 positions; {greedy}",
                text.prompt_tokens, text.mean, text.largest, text.same_greedy, text.positions
            );
        }
        self.print_layers();
        Ok(())
    }

    /// The layers of the text in which they differ most.
    #[expect(clippy::print_stdout, reason = "the report is what the command is for")]
    fn print_layers(&self) {
        let worst = self.texts.iter().max_by(|a, b| a.mean.total_cmp(&b.mean));
        let Some(text) = worst.filter(|text| !text.residuals.is_empty()) else {
            return;
        };
        println!(
            "relative differences of the sum of the layers before each norm, in the text with the largest mean:"
        );
        let mut before = 0.0_f64;
        for layer in &text.residuals {
            // Where they part, the difference leaps.
            let mark = if layer.relative > 10.0 * before.max(1e-6) {
                "  <- here they part"
            } else {
                ""
            };
            println!("  {:.2e}  {}{mark}", layer.relative, layer.before);
            before = before.max(layer.relative);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_positions_and_the_largest_over_texts() {
        let text = |positions, mean, largest| Difference {
            positions,
            mean,
            largest,
            ..Difference::default()
        };
        let report = Report::new(
            "cpu",
            "candle",
            vec![text(30, 0.1, 0.5), text(10, 0.5, 0.2)],
        );
        assert!((report.mean - 0.2).abs() < 1e-12 && report.largest == 0.5);
        assert!(report.agrees_within(0.21) && !report.agrees_within(0.19));
    }
}
