//! Names of benchmarks: those of claims, and those of suites that measure them.

use crate::record::Measure;

/// The same benchmark under other names: first as claims have it, then those of harnesses and suites, with hyphens.
const NAMES: [(&str, &[&str]); 7] = [
    ("humaneval+", &["humaneval-plus", "humanevalplus"]),
    ("humaneval", &["openai-humaneval", "human-eval"]),
    ("mbpp+", &["mbpp-plus", "mbppplus"]),
    ("swe-bench-verified", &["swebench-verified"]),
    ("bfcl", &["berkeley-function-calling", "bfcl-v1"]),
    ("livecodebench", &["lcb"]),
    ("tau2-bench", &["tau2bench"]),
];
/// How harnesses mark that a benchmark is asked in a chat, as all claims here are.
const IN_A_CHAT: &str = "-instruct";

/// Where what is around the model, or which tasks it selects, decides the result more than the model does.
const HARNESS_DECIDES: [&str; 7] = [
    "swe-bench",
    "bfcl",
    "terminal-bench",
    "tau2-bench",
    "livecodebench",
    "ifeval",
    "mmlu",
];
/// EvalPlus takes a selection of MBPP, others take other ones.
const SELECTED_BY_HARNESS: &str = "mbpp";

/// A benchmark, whatever it is called.
pub(super) struct Benchmark {
    name: String,
}

impl Benchmark {
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: canonical(name),
        }
    }

    /// Whether a measure is of it: the last part of its suite's name is.
    pub(super) fn is_of(&self, measure: &Measure) -> bool {
        measure
            .suite
            .rsplit('/')
            .next()
            .is_some_and(|last| canonical(last) == self.name)
    }

    /// Whether results of two harnesses are two things. Functions that are run against the same tests are not.
    pub(super) fn needs_same_harness(&self) -> bool {
        let is_selected = self.name == SELECTED_BY_HARNESS;
        is_selected
            || HARNESS_DECIDES
                .iter()
                .any(|begin| self.name.starts_with(begin))
    }
}

fn canonical(name: &str) -> String {
    let name = name.to_lowercase().replace('_', "-");
    let name = name.strip_suffix(IN_A_CHAT).unwrap_or(&name).to_owned();
    let known = NAMES
        .iter()
        .find(|(known, others)| *known == name || others.contains(&name.as_str()));
    known.map_or(name, |(known, _)| (*known).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_and_harnesses_call_benchmarks_as_they_like() {
        for (name, same) in [
            ("humaneval+", "humaneval-plus"),
            ("humaneval+", "HumanEval_Plus"),
            ("humaneval", "humaneval_instruct"),
            ("mbpp+", "mbpp_plus_instruct"),
            ("swe-bench-verified", "swe_bench_verified"),
        ] {
            assert_eq!(canonical(name), canonical(same), "{same}");
        }
        assert_ne!(canonical("humaneval"), canonical("humaneval-plus"));
        assert!(Benchmark::named("mbpp").needs_same_harness());
        assert!(!Benchmark::named("mbpp+").needs_same_harness());
    }
}
