//! All chat templates of a model, of which a request is rendered by one.

use std::collections::BTreeMap;

use super::{ChatTemplate, ChatTemplateInput, TemplateError};

/// The template of most models, and of a request that no other is for.
const DEFAULT: &str = "default";
/// The one for requests that offer tools, where a model has it.
const TOOL_USE: &str = "tool_use";
/// The one for requests with documents, where a model has it.
const RAG: &str = "rag";

/// A model's chat templates by name, at least one.
#[derive(Debug)]
pub struct ChatTemplates {
    by_name: BTreeMap<String, ChatTemplate>,
}

/// Why no template could be chosen. Each says what the name of one must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateChoiceError {
    /// The name is that of none.
    #[error("must be one of the model's chat templates: {0}")]
    Unknown(String),
    /// There are several, and none is for requests that name none.
    #[error("must name one of the model's chat templates, none of which is the default: {0}")]
    NoDefault(String),
}

impl ChatTemplates {
    /// Compiles all templates, given by name. A model without any has `None`.
    pub fn from_sources(sources: &BTreeMap<String, String>) -> Result<Option<Self>, TemplateError> {
        let compiled = sources.iter().map(|(name, source)| {
            let template = ChatTemplate::from_source(source).map_err(|error| match error {
                TemplateError::Syntax(reason) if name != DEFAULT => {
                    TemplateError::Syntax(format!("{name}: {reason}"))
                }
                TemplateError::Unsupported(names) if name != DEFAULT => {
                    TemplateError::Unsupported(format!("{name}: {names}"))
                }
                error => error,
            })?;
            Ok((name.clone(), template))
        });
        let by_name: BTreeMap<_, _> = compiled.collect::<Result<_, TemplateError>>()?;
        Ok((!by_name.is_empty()).then_some(Self { by_name }))
    }

    /// The template for a request: the one that it names, or else `tool_use` if it offers tools,
    /// `rag` if it has documents, and `default`, whichever the model has first.
    ///
    /// transformers chooses in the same way, but for `rag`, which its callers name themselves.
    pub fn choose(
        &self,
        name: Option<&str>,
        input: &ChatTemplateInput,
    ) -> Result<&ChatTemplate, TemplateChoiceError> {
        if let Some(name) = name {
            let named = self.by_name.get(name);
            return named.ok_or_else(|| TemplateChoiceError::Unknown(self.told()));
        }
        let wanted = [
            input.tools.as_ref().map(|_| TOOL_USE),
            input.documents.as_ref().map(|_| RAG),
            Some(DEFAULT),
        ];
        let mut found = wanted.into_iter().flatten();
        found
            .find_map(|name| self.by_name.get(name))
            .ok_or_else(|| TemplateChoiceError::NoDefault(self.told()))
    }

    /// The template that shows tools, which shows how the model writes its calls as well.
    pub fn for_tools(&self) -> &ChatTemplate {
        let of_name = |name| self.by_name.get(name);
        let mut any = self.by_name.values();
        of_name(TOOL_USE)
            .or_else(|| of_name(DEFAULT))
            .unwrap_or_else(|| any.next().expect("there is at least one"))
    }

    /// The template of requests that no other is for.
    pub fn default_template(&self) -> Option<&ChatTemplate> {
        self.by_name.get(DEFAULT)
    }

    /// Their names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Their texts, in the order of their names.
    pub fn sources(&self) -> Vec<&str> {
        self.by_name.values().map(ChatTemplate::source).collect()
    }

    /// What fails where it is reached, of each template that has such: see [`ChatTemplate::doubtful`].
    pub fn doubtful(&self) -> impl Iterator<Item = (&str, &[String])> {
        let named = self.by_name.iter();
        let doubtful = named.map(|(name, template)| (name.as_str(), template.doubtful()));
        doubtful.filter(|(_, doubtful)| !doubtful.is_empty())
    }

    fn told(&self) -> String {
        self.names().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn templates(names: &[&str]) -> ChatTemplates {
        let sources = names
            .iter()
            .map(|name| ((*name).to_owned(), (*name).to_owned()));
        ChatTemplates::from_sources(&sources.collect())
            .unwrap()
            .unwrap()
    }

    #[test]
    fn each_request_gets_the_template_that_is_for_it() {
        let plain = ChatTemplateInput::default();
        let tools = ChatTemplateInput {
            tools: Some(vec![json!({})]),
            ..plain.clone()
        };
        let documents = ChatTemplateInput {
            documents: Some(vec![json!({})]),
            ..plain.clone()
        };
        let both = ChatTemplateInput {
            documents: documents.documents.clone(),
            ..tools.clone()
        };
        let all = templates(&["default", "rag", "tool_use"]);
        let chosen = |input| all.choose(None, input).unwrap().source();
        assert_eq!(chosen(&plain), "default");
        assert_eq!(chosen(&tools), "tool_use");
        assert_eq!(chosen(&documents), "rag");
        assert_eq!(chosen(&both), "tool_use");
        assert_eq!(all.choose(Some("rag"), &tools).unwrap().source(), "rag");

        let single = templates(&["default"]);
        for input in [&plain, &tools, &documents] {
            assert_eq!(single.choose(None, input).unwrap().source(), "default");
        }
        assert_eq!(single.for_tools().source(), "default");
        assert_eq!(all.for_tools().source(), "tool_use");
    }

    #[test]
    fn a_name_that_is_none_or_that_is_needed_gets_those_there_are() {
        let templates = templates(&["tool_use", "other"]);
        let input = ChatTemplateInput::default();
        let unknown = templates.choose(Some("default"), &input).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "must be one of the model's chat templates: other, tool_use"
        );
        let none = templates.choose(None, &input).unwrap_err();
        assert_eq!(
            none,
            TemplateChoiceError::NoDefault("other, tool_use".into())
        );
        assert!(templates.default_template().is_none());
    }

    #[test]
    fn a_broken_template_is_found_at_once_and_named() {
        let sources = [("default", "a"), ("rag", "{% if %}")];
        let sources = sources.map(|(name, source)| (name.to_owned(), source.to_owned()));
        let error = ChatTemplates::from_sources(&sources.into()).unwrap_err();
        assert!(error.to_string().contains("rag: "), "{error}");
        assert!(
            ChatTemplates::from_sources(&BTreeMap::new())
                .unwrap()
                .is_none()
        );
    }
}
