//! How much worse the second is, in one sentence.

use super::comparison::Difference;

/// The sentence, with its interval.
pub(crate) fn of(names: &[String; 2], compared: &Difference) -> String {
    let [a, b] = names;
    let count = compared.tasks;
    let tasks = if count == 1 { "task" } else { "tasks" };
    let [score_a, score_b] = compared.scores.map(percent);
    let shares = format!("{score_b} % against {score_a} %");
    let (low, high) = (compared.interval.low, compared.interval.high);
    let sure = format!("{:.0} % interval", compared.interval.confidence * 100.0);
    if high < 0.0 {
        let (least, most) = (percent(-high), percent(-low));
        format!(
            "On {count} {tasks}, {b} is {} percentage points worse than {a} ({sure}: {least} to {most} worse): {shares}.",
            percent(-compared.difference)
        )
    } else if low > 0.0 {
        let (least, most) = (percent(low), percent(high));
        format!(
            "On {count} {tasks}, {b} is {} percentage points better than {a} ({sure}: {least} to {most} better): {shares}.",
            percent(compared.difference)
        )
    } else {
        format!(
            "On {count} {tasks}, no difference between {a} and {b} was found: {shares}; {b} may be up to {} percentage \
             points worse and up to {} better ({sure}).",
            percent(-low),
            percent(high)
        )
    }
}

/// Without its sign, where that is of nothing.
fn percent(fraction: f64) -> String {
    let text = format!("{:.1}", fraction * 100.0);
    text.strip_prefix('-')
        .filter(|rest| rest.chars().all(|digit| matches!(digit, '0' | '.')))
        .map_or(text.clone(), str::to_owned)
}
