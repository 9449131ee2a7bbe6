//! How many tests a run says that it passed.
//!
//! A program that ends early with status 0 has passed no tests. So where the real commit's run says how many it passed, a
//! model's run must say at least as many.

use regex_lite::Regex;

/// What test runners say, each in a line of its own: pytest, unittest, cargo, mocha, jest and vitest, TAP, and go.
const SAYINGS: &[&str] = &[
    r"(?m)^(?:=+ )?(?:\d+ [a-z]+, )*(\d+) passed(?:, \d+ [a-z]+)*(?: in [0-9].*)$",
    r"(?m)^Ran (\d+) tests? in ",
    r"(?m)^test result: ok\. (\d+) passed",
    r"(?m)^\s+(\d+) passing\b",
    r"(?m)^\s*Tests:?\s+(?:\d+ [a-z]+(?:,| \|) )*(\d+) passed",
    r"(?m)^# pass (\d+)$",
    r"(?m)^--- PASS: ()",
    r"(?m)^ok\s+()\S+\s+",
];

/// Tests that passed. None if it is not said in a way that is known.
pub(super) fn passed(output: &str) -> Option<u64> {
    SAYINGS.iter().find_map(|saying| {
        let saying = Regex::new(saying).ok()?;
        let mut sum = None;
        for found in saying.captures_iter(output) {
            // What says no number says it once for each.
            let number = found
                .get(1)
                .map_or(0, |number| number.as_str().parse().unwrap_or(1));
            sum = Some(sum.unwrap_or(0_u64).saturating_add(number));
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_runners_are_understood() {
        for (output, number) in [
            ("...\n3 passed in 0.01s\n", Some(3)),
            (
                "==== 1 failed, 12 passed, 2 skipped in 3.21s ====",
                Some(12),
            ),
            ("....\n-----\nRan 4 tests in 0.000s\n\nOK\n", Some(4)),
            ("Ran 1 test in 0.0s", Some(1)),
            (
                "test result: ok. 3 passed; 0 failed\ntest result: ok. 4 passed; 0 failed",
                Some(7),
            ),
            ("  5 passing (3ms)\n", Some(5)),
            ("Tests:       1 skipped, 6 passed, 7 total\n", Some(6)),
            (" Tests  2 passed (2)\n", Some(2)),
            ("# tests 3\n# pass 3\n", Some(3)),
            (
                "--- PASS: TestA (0.00s)\n--- PASS: TestB (0.00s)\nok  \ta/b\t0.1s\n",
                Some(2),
            ),
            ("ok  \ta/b\t0.1s\nok  \ta/c\t0.1s\n", Some(2)),
            ("all well", None),
            ("3 passed the salt", None),
        ] {
            assert_eq!(passed(output), number, "{output:?}");
        }
    }

    #[test]
    fn all_sayings_are_expressions() {
        for saying in SAYINGS {
            Regex::new(saying).unwrap();
        }
    }
}
