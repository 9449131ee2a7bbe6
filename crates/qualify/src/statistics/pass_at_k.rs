//! pass@k: how likely one of k answers to a task is right, estimated without bias from n >= k answers (Chen et al. 2021,
//! "Evaluating Large Language Models Trained on Code", equation 1).

use crate::record::{Attempt, Interval, Outcome};

use super::{bootstrap_mean, wilson};

/// Answers to one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskCount {
    /// Its name.
    pub task: String,
    /// Answers.
    pub samples: u32,
    /// Right ones.
    pub passed: u32,
}

/// Counts answers, and those for which `is_right` holds, in the order in which tasks first come. Attempts without an answer
/// are no answers.
pub fn counts_by_task(attempts: &[Attempt], is_right: impl Fn(&Attempt) -> bool) -> Vec<TaskCount> {
    let mut places = std::collections::HashMap::new();
    let mut counts: Vec<TaskCount> = Vec::new();
    for attempt in attempts {
        if attempt.outcome == Outcome::NoAnswer {
            continue;
        }
        let place = *places.entry(attempt.task.as_str()).or_insert(counts.len());
        if place == counts.len() {
            counts.push(TaskCount {
                task: attempt.task.clone(),
                samples: 0,
                passed: 0,
            });
        }
        counts[place].samples += 1;
        counts[place].passed += u32::from(is_right(attempt));
    }
    counts
}

/// The mean of pass@k over tasks, and its interval: Wilson's where each task has one answer, a bootstrap over tasks where
/// there are several. Tasks with fewer than k answers cannot be estimated and are not counted; the third value says of how
/// many tasks it is.
pub fn pass_at_k(counts: &[TaskCount], k: u32, seed: u64) -> Option<(f64, Option<Interval>, u64)> {
    let enough: Vec<&TaskCount> = counts.iter().filter(|count| count.samples >= k).collect();
    if k == 0 || enough.is_empty() {
        return None;
    }
    let values: Vec<f64> = enough
        .iter()
        .map(|count| estimate(count.samples, count.passed, k))
        .collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let interval = if enough.iter().all(|count| count.samples == 1) {
        let passed = enough.iter().filter(|count| count.passed > 0).count();
        wilson(passed as u64, enough.len() as u64)
    } else {
        bootstrap_mean(&values, seed)
    };
    Some((mean, interval, enough.len() as u64))
}

/// `1 - C(n - c, k) / C(n, k)`, as a product, since the combinations would overflow.
fn estimate(samples: u32, passed: u32, k: u32) -> f64 {
    let wrong = samples - passed.min(samples);
    if wrong < k {
        return 1.0;
    }
    let none_right: f64 = (wrong + 1..=samples)
        .map(|n| 1.0 - f64::from(k) / f64::from(n))
        .product();
    1.0 - none_right
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    /// With whole numbers, as far as they reach.
    fn combinations(n: u32, k: u32) -> u128 {
        (0..k).fold(1, |product, i| {
            product * u128::from(n - i) / u128::from(i + 1)
        })
    }

    #[test]
    fn the_estimate_is_the_one_of_combinations() {
        for samples in 1..=30 {
            for passed in 0..=samples {
                for k in 1..=samples {
                    let wrong = samples - passed;
                    let none = if wrong < k { 0 } else { combinations(wrong, k) };
                    let exact = 1.0 - none as f64 / combinations(samples, k) as f64;
                    let ours = estimate(samples, passed, k);
                    assert!(
                        (ours - exact).abs() < 1e-12,
                        "{samples} {passed} {k}: {ours} {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn pass_at_1_is_the_share_of_right_answers() {
        assert!((estimate(200, 50, 1) - 0.25).abs() < 1e-12);
        assert!(estimate(200, 50, 10) > 0.94);
    }

    #[test]
    fn tasks_without_enough_answers_are_not_estimated() {
        let attempt = |task: &str, sample, outcome| Attempt {
            task: task.into(),
            sample,
            outcome,
            score: 0.0,
            reason: None,
            marks: BTreeMap::new(),
            request: Value::Null,
            replies: Vec::new(),
            retries: 0,
        };
        let attempts = [
            attempt("b", 0, Outcome::Passed),
            attempt("a", 0, Outcome::Failed),
            attempt("b", 1, Outcome::Failed),
            attempt("a", 1, Outcome::NoAnswer),
        ];
        let counts = counts_by_task(&attempts, |attempt| attempt.outcome == Outcome::Passed);
        assert_eq!(counts.len(), 2);
        assert_eq!((counts[0].samples, counts[0].passed), (2, 1));
        assert_eq!(counts[1].samples, 1, "no answer is not a wrong one");
        assert_eq!(
            pass_at_k(&counts, 2, 0).map(|(value, _, count)| (value, count)),
            Some((1.0, 1))
        );
        assert_eq!(pass_at_k(&counts, 3, 0), None);
        let (value, interval, _) = pass_at_k(&counts, 1, 0).unwrap();
        assert_eq!(value, 0.25);
        assert_eq!(interval.unwrap().method, "bootstrap");
    }
}
