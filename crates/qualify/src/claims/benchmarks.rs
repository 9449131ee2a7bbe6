//! Names of benchmarks: those of claims, and those of suites that measure them.

use crate::record::Measure;

/// The same benchmark under other names: first as claims have it, then those of harnesses.
const NAMES: [(&str, &[&str]); 7] = [
    ("humaneval+", &["humaneval_plus", "humanevalplus"]),
    (
        "humaneval",
        &["humaneval_instruct", "openai_humaneval", "human-eval"],
    ),
    ("mbpp+", &["mbpp_plus", "mbppplus"]),
    ("mbpp", &["mbpp_instruct"]),
    (
        "swe-bench-verified",
        &["swebench_verified", "swe_bench_verified"],
    ),
    ("bfcl", &["berkeley_function_calling", "bfcl_v1"]),
    ("livecodebench", &["lcb"]),
];

/// Where what is around the model decides the result more than the model does.
const HARNESS_DECIDES: [&str; 7] = [
    "swe-bench",
    "bfcl",
    "terminal-bench",
    "tau2-bench",
    "livecodebench",
    "ifeval",
    "mmlu",
];

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
        HARNESS_DECIDES
            .iter()
            .any(|begin| self.name.starts_with(begin))
    }
}

fn canonical(name: &str) -> String {
    let name = name.to_lowercase();
    let known = NAMES
        .iter()
        .find(|(known, others)| *known == name || others.contains(&name.as_str()));
    known.map_or(name, |(known, _)| (*known).to_owned())
}
