//! A simulation short enough for every change.

use backstop_sim::run;

#[test]
#[expect(clippy::print_stderr, reason = "shown when it fails")]
fn three_hundred_thousand_steps_are_clean_and_eventful() {
    let report = run(1, 300_000);
    eprintln!("{report}");
    assert!(report.plans > 30_000, "{report}");
    assert!(report.failed_plans > 500, "{report}");
    assert!(report.rejections > 500 && report.aborts > 500, "{report}");
    assert!(report.expirations > 100, "{report}");
    assert!(report.rated_tokens > 5_000, "{report}");
    assert!(report.cache_losses > 100, "{report}");
    assert!(
        report.preemptions > 500 && report.cached_tokens > 10_000,
        "{report}"
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(77, 20_000), run(77, 20_000));
    assert_ne!(run(77, 20_000).trace_hash, run(78, 20_000).trace_hash);
}
