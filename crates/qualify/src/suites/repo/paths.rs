//! Paths in a repository: which are safe to write, and which are of tests.

use glob::{MatchOptions, Pattern};

use crate::QualifyError;

const BYTES_MAX: usize = 1000;
const PARTS_MAX: usize = 40;
const GLOBS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};
/// As most test runners have them.
const OF_TESTS: &[&str] = &[
    "**/test/**",
    "**/tests/**",
    "**/spec/**",
    "**/specs/**",
    "**/__tests__/**",
    "**/testdata/**",
    "**/test_*",
    "**/*_test.*",
    "**/*_tests.*",
    "**/*_spec.*",
    "**/*.test.*",
    "**/*.spec.*",
    "**/*Test.java",
    "**/*Tests.cs",
    "**/conftest.py",
];
/// What no test can judge.
const NO_CODE: &[&str] = &[
    "**/*.md",
    "**/*.rst",
    "**/*.txt",
    "**/*.adoc",
    "**/doc/**",
    "**/docs/**",
    "**/LICENSE*",
    "**/CHANGELOG*",
    "**/.git*",
    "**/.github/**",
    "**/*.lock",
    "**/*.png",
    "**/*.svg",
    "**/*.jpg",
];

/// Whether a file may be written there: within the directory, and not where git keeps its own.
pub(super) fn check(path: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("{path:?} is no path in the repository: {why}"));
    if path.is_empty() || path.len() > BYTES_MAX {
        return refuse("it is empty or too long");
    }
    if path.starts_with('/') {
        return refuse("it begins at the root");
    }
    if path.contains('\\') || path.chars().any(char::is_control) {
        return refuse("it has characters that no path needs");
    }
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() > PARTS_MAX {
        return refuse("it is too deep");
    }
    for part in parts {
        if part.is_empty() || part == "." || part == ".." {
            return refuse("it has an empty part, . or ..");
        }
        if part.eq_ignore_ascii_case(".git") {
            return refuse("git's own files cannot be changed");
        }
    }
    Ok(())
}

/// Which files are tests, and which nothing can be said about.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    tests: Vec<Pattern>,
    /// By the name of the file alone.
    named: Vec<Pattern>,
    no_code: Vec<Pattern>,
}

impl Rules {
    /// With the team's own patterns of tests, if it has some.
    pub(super) fn new(tests: &[String]) -> Result<Self, QualifyError> {
        let patterns =
            |texts: &mut dyn Iterator<Item = &str>| -> Result<Vec<Pattern>, QualifyError> {
                let parse = |text: &str| {
                    Pattern::new(text).map_err(|error| {
                        QualifyError::new(format!("--repo-tests {text:?} is no pattern: {error}"))
                    })
                };
                texts.map(parse).collect()
            };
        Ok(Self {
            tests: if tests.is_empty() {
                patterns(&mut OF_TESTS.iter().copied())?
            } else {
                patterns(&mut tests.iter().map(String::as_str))?
            },
            named: patterns(
                &mut OF_TESTS
                    .iter()
                    .filter_map(|text| text.strip_prefix("**/").filter(|name| !name.contains('/'))),
            )?,
            no_code: patterns(&mut NO_CODE.iter().copied())?,
        })
    }

    pub(super) fn is_test(&self, path: &str) -> bool {
        matches(&self.tests, path)
    }

    /// Neither a test nor documentation.
    pub(super) fn is_code(&self, path: &str) -> bool {
        !self.is_test(path) && !matches(&self.no_code, path)
    }

    /// Those of these files that are programs of tests, by their names; without such names, all that are tests.
    pub(super) fn to_run<'a>(&self, paths: impl Iterator<Item = &'a String>) -> Vec<String> {
        let tests: Vec<&String> = paths.filter(|path| self.is_test(path)).collect();
        let is_named = |path: &&&String| {
            let name = path.rsplit('/').next().unwrap_or(path);
            name != "conftest.py" && matches(&self.named, name)
        };
        let named: Vec<String> = tests
            .iter()
            .filter(is_named)
            .map(|path| (*path).clone())
            .collect();
        if named.is_empty() {
            tests.into_iter().cloned().collect()
        } else {
            named
        }
    }

    /// For people, and for the record.
    pub(super) fn tests(&self) -> Vec<&str> {
        self.tests.iter().map(Pattern::as_str).collect()
    }
}

fn matches(patterns: &[Pattern], path: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| pattern.matches_with(path, GLOBS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_within_the_repository_are_written() {
        for good in [
            "a",
            "src/a b.py",
            "x/..a/.gitignore",
            ".github/b",
            "ä/漢.rs",
        ] {
            check(good).unwrap();
        }
        for bad in [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "a//b",
            "./a",
            "a/.",
            ".git/hooks/pre-commit",
            "sub/.GIT/config",
            "a\\b",
            "a\nb",
            "a\0b",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check(&"a/".repeat(50)).is_err());
        assert!(check(&"a".repeat(1001)).is_err());
    }

    #[test]
    fn tests_are_told_from_code_by_their_names() {
        let rules = Rules::new(&[]).unwrap();
        for test in [
            "tests/data/a.json",
            "test_a.py",
            "pkg/tests/a.py",
            "pkg/a_test.go",
            "src/a.spec.ts",
            "conftest.py",
            "src/test/java/A.java",
        ] {
            assert!(rules.is_test(test) && !rules.is_code(test), "{test}");
        }
        for code in [
            "a.py",
            "src/latest.rs",
            "contest.py",
            "src/attest/a.rs",
            "Makefile",
        ] {
            assert!(rules.is_code(code), "{code}");
        }
        for other in ["README.md", "docs/a.py", ".gitignore", "a/CHANGELOG"] {
            assert!(!rules.is_code(other) && !rules.is_test(other), "{other}");
        }
        let run = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            rules.to_run(paths.iter())
        };
        assert_eq!(
            run(&[
                "tests/data/a.json",
                "tests/test_a.py",
                "conftest.py",
                "b.py"
            ]),
            ["tests/test_a.py"]
        );
        assert_eq!(run(&["tests/a.sh", "c.py"]), ["tests/a.sh"]);
        let own = Rules::new(&["checks/**".to_owned()]).unwrap();
        assert!(own.is_test("checks/a.py") && own.is_code("tests/a.py"));
        assert!(Rules::new(&["[".to_owned()]).is_err());
    }
}
