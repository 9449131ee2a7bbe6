//! The names under which a model is served.

/// Served name that stands for any name.
const ANY_NAME: &str = "*";

/// The served names of one model. The first one that is a name is the default and names the metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a>(pub(crate) &'a [String]);

impl<'a> Names<'a> {
    /// Those that are names.
    pub(crate) fn listed(self) -> impl Iterator<Item = &'a str> {
        let names = self.0.iter().map(String::as_str);
        names.filter(|name| *name != ANY_NAME)
    }

    /// The name that requests without one get; `label` if none is listed.
    pub(crate) fn default_or(self, label: &'a str) -> &'a str {
        self.listed().next().unwrap_or(label)
    }

    /// All names that a list of models shows; `label` if none is listed.
    pub(crate) fn shown(self, label: &'a str) -> Vec<&'a str> {
        let names: Vec<&str> = self.listed().collect();
        match names.is_empty() {
            true => vec![label],
            false => names,
        }
    }

    /// Whether the model is meant by this very name.
    pub(crate) fn list(self, name: &str) -> bool {
        self.listed().any(|listed| listed == name)
    }

    /// Whether requests may call the model so.
    pub(crate) fn serve(self, name: &str) -> bool {
        self.0
            .iter()
            .any(|served| served == ANY_NAME || served == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_serves_any_name_and_is_never_shown() {
        let served = ["*".into(), "north".into()];
        assert!(Names(&served).serve("gpt-5"));
        assert_eq!(Names(&served).default_or("weights"), "north");
        assert_eq!(Names(&served[..1]).default_or("weights"), "weights");
    }

    #[test]
    fn without_a_star_only_listed_names_are_served() {
        let served = ["north".into()];
        assert!(Names(&served).serve("north"));
        assert!(!Names(&served).serve("gpt-5"));
    }
}
