//! Lists of modules.

use std::fmt;

use regex_lite::Regex;

/// A list of module names, some given as regular expressions.
#[derive(Clone, Debug, Default)]
pub struct ModulePatterns {
    exact: Vec<String>,
    expressions: Vec<Regex>,
}

impl ModulePatterns {
    /// Parses names and, after `re:`, expressions. They match from the start of a name but need
    /// not reach its end, as Python's `re.match` does, which the writers of these lists rely on.
    pub fn parse(patterns: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        for pattern in patterns {
            let Some(expression) = pattern.strip_prefix("re:") else {
                parsed.exact.push(pattern.clone());
                continue;
            };
            let expression = Regex::new(&format!("^(?:{expression})")).map_err(|error| {
                format!("the pattern {pattern:?} cannot be understood: {error}")
            })?;
            parsed.expressions.push(expression);
        }
        Ok(parsed)
    }

    /// Whether the name is in the list.
    pub fn matches(&self, module: &str) -> bool {
        self.exact.iter().any(|name| name == module)
            || self
                .expressions
                .iter()
                .any(|expression| expression.is_match(module))
    }
}

impl fmt::Display for ModulePatterns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expressions = self.expressions.iter().map(Regex::as_str);
        let all: Vec<&str> = self
            .exact
            .iter()
            .map(String::as_str)
            .chain(expressions)
            .collect();
        formatter.write_str(&all.join(", "))
    }
}
