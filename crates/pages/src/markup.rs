//! Text that is safe in a page.

use std::fmt;

/// HTML or SVG. What is made of text is escaped; only [`Markup::raw`] takes tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Markup(String);

impl Markup {
    /// Takes markup as it is: the caller has made it, of nothing that others wrote.
    pub fn raw(markup: impl Into<String>) -> Self {
        Self(markup.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Markup {
    fn from(text: &str) -> Self {
        Self(escape(text))
    }
}

impl From<String> for Markup {
    fn from(text: String) -> Self {
        Self(escape(&text))
    }
}

impl fmt::Display for Markup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromIterator<Markup> for Markup {
    fn from_iter<I: IntoIterator<Item = Markup>>(parts: I) -> Self {
        Self(parts.into_iter().map(|part| part.0).collect())
    }
}

/// For text and for attributes in either kind of quotation marks. Characters that no document may have are left out.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            other if other.is_control() => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text() {
        let markup = Markup::from("<script>\"'&\u{1b}[2J\n");
        assert_eq!(markup.as_str(), "&lt;script&gt;&quot;&#39;&amp;[2J\n");
        let both: Markup = [Markup::raw("<b>"), "<".into(), Markup::raw("</b>")]
            .into_iter()
            .collect();
        assert_eq!(both.to_string(), "<b>&lt;</b>");
    }
}
