//! How a question is put to a model, and what its answer is made of.

use backstop_protocol::{
    ChoiceProbability, ChoiceValue, DecisionAnswer, DecisionQuestion, LevelProbability,
    QuestionKind,
};

/// Letters of labels.
const LETTERS: u8 = 26;

/// The labels by which a question can be answered. None is the beginning of another.
pub(super) fn labels(kind: &QuestionKind) -> Vec<String> {
    match kind {
        QuestionKind::Predicate => vec!["yes".to_owned(), "no".to_owned()],
        QuestionKind::Choice(options) => letters(options.len()),
        QuestionKind::Score(levels) => (0..levels.len()).map(|level| level.to_string()).collect(),
    }
}

/// A, B, C; where they don't suffice, two letters each.
fn letters(count: usize) -> Vec<String> {
    let letter = |index: usize| char::from(b'A' + (index % usize::from(LETTERS)) as u8);
    let label = |index: usize| match count > usize::from(LETTERS) {
        true => [letter(index / usize::from(LETTERS)), letter(index)]
            .iter()
            .collect(),
        false => letter(index).to_string(),
    };
    (0..count).map(label).collect()
}

/// What the user says: the input, the question, and its answers with their labels.
pub(super) fn prompt(input: &str, question: &DecisionQuestion) -> String {
    let mut lines = vec![format!("Question: {}", question.instructions)];
    let labels = labels(&question.kind).into_iter();
    let line = |label: String, text: &str, description: &Option<String>| match description {
        Some(description) => format!("{label}: {text} - {description}"),
        None => format!("{label}: {text}"),
    };
    match &question.kind {
        QuestionKind::Predicate => lines.push("Answer with yes or no only.".to_owned()),
        QuestionKind::Choice(options) => {
            let options = labels.zip(options);
            lines.extend(
                options.map(|(label, option)| {
                    line(label, &text_of(&option.value), &option.description)
                }),
            );
            lines.push("Answer with the letters of one of these only.".to_owned());
        }
        QuestionKind::Score(levels) => {
            let levels = labels.zip(levels);
            lines
                .extend(levels.map(|(label, level)| line(label, &level.label, &level.description)));
            lines.push("Answer with the number of one of these only.".to_owned());
        }
    }
    format!("{input}\n\n{}", lines.join("\n"))
}

fn text_of(value: &ChoiceValue) -> String {
    match value {
        ChoiceValue::Text(text) => text.clone(),
        ChoiceValue::Flag(flag) => flag.to_string(),
    }
}

/// The answer, given the log-likelihood of each label.
pub(super) fn answer(question: DecisionQuestion, likelihoods: &[f64]) -> DecisionAnswer {
    let probabilities = among_themselves(likelihoods);
    let likeliest = likeliest(likelihoods);
    let confidence = likelihoods.get(likeliest).map_or(0.0, |it| it.exp());
    let name = question.name;
    match question.kind {
        QuestionKind::Predicate => DecisionAnswer::Predicate {
            name,
            probability: probabilities.first().copied().unwrap_or_default(),
        },
        QuestionKind::Choice(options) => DecisionAnswer::Choice {
            name,
            choice: options[likeliest].value.clone(),
            probabilities: options
                .into_iter()
                .zip(probabilities)
                .map(|(option, probability)| ChoiceProbability {
                    value: option.value,
                    probability,
                })
                .collect(),
            confidence,
        },
        QuestionKind::Score(levels) => DecisionAnswer::Score {
            name,
            score: (0u32..)
                .zip(&probabilities)
                .map(|(level, p)| f64::from(level) * p)
                .sum(),
            probabilities: levels
                .into_iter()
                .zip(probabilities)
                .enumerate()
                .map(|(value, (level, probability))| LevelProbability {
                    value,
                    label: level.label,
                    probability,
                })
                .collect(),
            confidence,
        },
    }
}

/// The first of the largest.
fn likeliest(likelihoods: &[f64]) -> usize {
    let mut best = 0;
    for (index, likelihood) in likelihoods.iter().enumerate() {
        if *likelihood > likelihoods[best] {
            best = index;
        }
    }
    best
}

/// Softmax.
fn among_themselves(likelihoods: &[f64]) -> Vec<f64> {
    let largest = likelihoods
        .get(likeliest(likelihoods))
        .copied()
        .unwrap_or_default();
    let weights: Vec<f64> = likelihoods.iter().map(|it| (it - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_the_beginning_of_another() {
        for count in [2, 26, 27, 255] {
            let labels = letters(count);
            assert_eq!(labels.len(), count);
            for (index, label) in labels.iter().enumerate() {
                let others = labels.iter().skip(index + 1);
                assert!(
                    others
                        .into_iter()
                        .all(|other| !other.starts_with(label.as_str()))
                );
            }
        }
        assert_eq!(letters(3), ["A", "B", "C"]);
        assert_eq!(letters(30)[27], "BB");
    }

    #[test]
    fn probabilities_are_a_distribution_even_of_the_unlikely() {
        let all = among_themselves(&[-1000.0, -1000.0 + 3f64.ln()]);
        assert!((all[0] - 0.25).abs() < 1e-9 && (all[1] - 0.75).abs() < 1e-9);
        assert_eq!(among_themselves(&[-9999.0, -9999.0]), [0.5, 0.5]);
        assert_eq!(likeliest(&[-2.0, -1.0, -1.0]), 1);
    }
}
