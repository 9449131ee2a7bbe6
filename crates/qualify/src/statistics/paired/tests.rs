//! Published examples, and what the intervals cover.

use super::*;

fn table(both: u64, only_a: u64, only_b: u64, neither: u64) -> PairedTable {
    PairedTable {
        both,
        only_a,
        only_b,
        neither,
    }
}

fn close(value: f64, published: f64, digits: i32) {
    let slack = 0.5001 * 10_f64.powi(-digits);
    assert!(
        (value - published).abs() <= slack,
        "{value} is not {published}"
    );
}

/// Airway hyper-responsiveness (Bentur and others 2009) and complete response (Cavo and others 2012), as worked out in
/// Fagerland, Lydersen and Laake, "The McNemar test for binary matched-pairs data", 2013, and in their book of 2017.
#[test]
fn mcnemar_is_what_was_published() {
    let airways = table(1, 1, 7, 12).mcnemar();
    close(airways.exact_p, 0.0703, 4);
    close(airways.mid_p, 0.0391, 4);
    let response = table(59, 6, 16, 80).mcnemar();
    close(response.exact_p, 0.052_479, 6);
    close(response.mid_p, 0.034_690, 6);
    // It does not matter who is first, nor where they agree.
    assert_eq!(response, table(0, 16, 6, 0).mcnemar());
}

#[test]
fn mcnemar_has_sensible_ends() {
    assert_eq!(table(5, 0, 0, 5).mcnemar().exact_p, 1.0);
    let even = table(0, 3, 3, 0).mcnemar();
    assert_eq!(even.exact_p, 1.0);
    close(even.mid_p, 1.0 - 20.0 / 64.0 / 2.0, 12);
    let sure = sign_test(0, 10).exact_p;
    close(sure, 2.0 / 1024.0, 12);
    // Far beyond what 2^-n can be written down for; the normal approximation is good there.
    let many = sign_test(499_000, 501_000);
    let z = 1999.0 / 1_000_000_f64.sqrt();
    assert!((many.exact_p - 2.0 * normal::below(-z)).abs() < 1e-5);
    assert!(sign_test(0, 5000).exact_p < 1e-300);
}

/// Their signs are turned round: the book's difference is the first less the second.
#[test]
fn newcombe_is_what_was_published() {
    let response = table(59, 6, 16, 80).newcombe();
    close(response.low, 0.0046, 4);
    close(response.high, 0.1186, 4);
    // Altman and others, "Statistics with confidence", 2000, table 6.2.
    let altman = table(14, 5, 0, 22).newcombe();
    close(altman.low, -0.226, 3);
    close(altman.high, -0.011, 3);
}

#[test]
fn newcombe_has_a_width_without_differences_and_stays_in_range() {
    for cells in [table(50, 0, 0, 50), table(100, 0, 0, 0), table(0, 0, 0, 1)] {
        let interval = cells.newcombe();
        assert!(
            interval.low < 0.0 && interval.high > 0.0,
            "{cells:?}: {interval:?}"
        );
        assert!(interval.low >= -1.0 && interval.high <= 1.0);
    }
    let opposite = table(0, 9, 0, 0).newcombe();
    assert!(opposite.low == -1.0 && opposite.high < -0.3, "{opposite:?}");
    assert_eq!(PairedTable::default().newcombe().low, -1.0);
}

#[test]
fn a_bootstrap_is_the_same_for_the_same_seed() {
    let differences: Vec<f64> = (0..60)
        .map(|task| f64::from(task % 7) / 7.0 - 0.5)
        .collect();
    let first = bootstrap(&differences, 1);
    assert_eq!(first, bootstrap(&differences, 1));
    assert_ne!(first, bootstrap(&differences, 2));
    let centre = mean(&differences);
    assert!(first.low < centre && centre < first.high);
    // Of values without skewness it is close to what the normal distribution says.
    let variance = mean(
        &differences
            .iter()
            .map(|value| (value - centre).powi(2))
            .collect::<Vec<_>>(),
    );
    let half = 1.96 * (variance / 60.0).sqrt();
    assert!((first.high - first.low - 2.0 * half).abs() < 0.1 * half);
}

/// Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: what BCa is for. Skewed data move the interval to
/// the side of the long tail, where the percentiles alone stay behind.
#[test]
fn a_long_tail_moves_the_interval() {
    let mut differences = vec![0.0; 45];
    differences.extend([1.0; 5]);
    let interval = bootstrap(&differences, 3);
    let (below, above) = (0.1 - interval.low, interval.high - 0.1);
    assert!(above > 1.2 * below, "{interval:?}");
}

#[test]
fn no_difference_in_few_tasks_says_little() {
    close(bootstrap(&[0.0; 10], 1).high, 0.2589, 4);
    close(bootstrap(&[0.0; 300], 1).high, 0.009_936, 6);
    assert_eq!(bootstrap(&[], 1).low, -1.0);
    let all_alike = bootstrap(&[-0.25; 300], 1);
    close(all_alike.low, -0.25 - 0.75 * 0.009_936, 6);
    close(all_alike.high, -0.25 + 1.25 * 0.009_936, 6);
}

/// Draws pairs whose true difference is known, and counts how often the intervals have it.
#[test]
fn intervals_cover_what_they_should() {
    const RUNS: u32 = 400;
    let mut random = Random::new(20_26);
    let (mut newcombe, mut resampled) = (0, 0);
    for run in 0..RUNS {
        // Of 100 tasks, on average, 15 are the first's alone and 5 the second's.
        let tasks: Vec<(bool, bool)> = (0..80)
            .map(|_| match random.below(100) {
                0..15 => (true, false),
                15..20 => (false, true),
                20..70 => (true, true),
                _ => (false, false),
            })
            .collect();
        let differences: Vec<f64> = tasks
            .iter()
            .map(|(a, b)| f64::from(*b) - f64::from(*a))
            .collect();
        let has = |interval: Interval| u32::from(interval.low <= -0.1 && -0.1 <= interval.high);
        newcombe += has(PairedTable::of(tasks).newcombe());
        resampled += has(bootstrap(&differences, u64::from(run)));
    }
    // 0.95, give or take three standard deviations of so many runs.
    for (name, count) in [("Newcombe", newcombe), ("bootstrap", resampled)] {
        let coverage = f64::from(count) / f64::from(RUNS);
        assert!((0.917..0.983).contains(&coverage), "{name}: {coverage}");
    }
}
