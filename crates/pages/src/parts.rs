//! What pages are made of.

use crate::markup::{Markup, escape};

const COLOURS: &str = include_str!("colours.css");
const PAGE: &str = include_str!("page.css");
const CHARTS: &str = include_str!("charts.css");

/// What style a chart needs that stands alone.
pub(crate) fn chart_style() -> String {
    [COLOURS, CHARTS].concat()
}

/// A script of a page's own.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// It; it has no `</script`.
    pub text: &'a str,
    /// SHA-256 of it, in Base64: a browser runs nothing else.
    pub sha256: &'a str,
}

/// A whole document, with the common style sheet and `style` after it. It loads nothing and runs nothing.
pub fn page(title: &str, style: &str, body: &Markup) -> String {
    document(title, style, body, None)
}

/// As [`page`], with a script that runs when the rest is there.
pub fn page_with_script(title: &str, style: &str, script: Script<'_>, body: &Markup) -> String {
    document(title, style, body, Some(script))
}

fn document(title: &str, style: &str, body: &Markup, script: Option<Script<'_>>) -> String {
    let title = escape(title);
    let (policy, script) = script.map_or_else(Default::default, |script| {
        (
            format!("; script-src 'sha256-{}'", script.sha256),
            format!("<script>{}</script>", script.text),
        )
    });
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'{policy}\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}</title><style>{COLOURS}{PAGE}{CHARTS}{style}</style></head>\n\
         <body><main>{body}</main>{script}</body></html>\n"
    )
}

/// What a badge or a row means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
    /// Worth a look.
    Warning,
    /// Not known.
    Open,
}

impl Tone {
    /// Its name in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Warning => "warning",
            Self::Open => "open",
        }
    }
}

/// A verdict in a word or two.
pub fn badge(tone: Tone, text: &str) -> Markup {
    Markup::raw(format!(
        "<span class=\"badge {}\">{}</span>",
        tone.class(),
        escape(text)
    ))
}

/// The numbers that matter most, large, each with its name.
pub fn tiles(tiles: &[(&str, String)]) -> Markup {
    let tiles: String = tiles
        .iter()
        .map(|(name, value)| {
            let (name, value) = (escape(name), escape(value));
            format!("<div><dt>{name}</dt><dd>{value}</dd></div>")
        })
        .collect();
    Markup::raw(format!("<dl class=\"tiles\">{tiles}</dl>"))
}

/// A table, whose rows are headed by their first cell. It scrolls where it is too wide.
pub fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<Markup>>) -> Markup {
    let heads: String = heads
        .iter()
        .map(|head| format!("<th scope=\"col\">{}</th>", escape(head)))
        .collect();
    let rows: String = rows.into_iter().map(row).collect();
    Markup::raw(format!(
        "<div class=\"wide\" tabindex=\"0\"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    ))
}

fn row(cells: Vec<Markup>) -> String {
    let cells: String = cells
        .iter()
        .enumerate()
        .map(|(number, cell)| match number {
            0 => format!("<th scope=\"row\">{cell}</th>"),
            _ => format!("<td>{cell}</td>"),
        })
        .collect();
    format!("<tr>{cells}</tr>")
}

/// Names and what they stand for, one below the other.
pub fn facts(rows: impl IntoIterator<Item = (Markup, Markup)>) -> Markup {
    let rows: String = rows
        .into_iter()
        .map(|(name, value)| row(vec![name, value]))
        .collect();
    Markup::raw(format!(
        "<table class=\"facts\"><tbody>{rows}</tbody></table>"
    ))
}

/// A part of a page. `id`, of letters, digits and hyphens, is where links lead.
pub fn section(id: &str, heading: impl Into<Markup>, body: &Markup) -> Markup {
    Markup::raw(format!(
        "<section id=\"{}\"><h2>{}</h2>{body}</section>",
        escape(id),
        heading.into()
    ))
}

/// Text in which what stands between backticks is code.
pub fn code(text: &str) -> Markup {
    let parts = text.split('`').enumerate();
    parts
        .map(|(number, part)| match number % 2 {
            1 => Markup::raw(format!("<code>{}</code>", escape(part))),
            _ => part.into(),
        })
        .collect()
}

/// Seconds, with as many digits as they deserve.
pub fn seconds(value: f64) -> String {
    let digits = if value < 0.1 {
        3
    } else if value < 10.0 {
        2
    } else {
        1
    };
    format!("{value:.digits$} s")
}

/// A number of three significant digits, thousands as `k`, millions as `M`.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let (scaled, suffix) = match value.abs() {
        size if size >= 999_500_000.0 => (value / 1e9, "G"),
        size if size >= 999_500.0 => (value / 1e6, "M"),
        size if size >= 9_999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    if scaled == 0.0 {
        return "0".to_owned();
    }
    let before_point = scaled.abs().log10().floor() as i32 + 1;
    let digits = usize::try_from(3 - before_point).unwrap_or(0).min(6);
    let text = format!("{scaled:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_they_deserve() {
        for (value, text) in [
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (0.5, "0.5"),
            (12.345, "12.3"),
            (100.0, "100"),
            (4_096.0, "4096"),
            (32_768.0, "32.8k"),
            (999_900.0, "1M"),
            (-2.5e9, "-2.5G"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(seconds(0.0456), "0.046 s");
        assert_eq!(seconds(20.04), "20.0 s");
    }

    #[test]
    fn nothing_that_others_wrote_becomes_a_tag() {
        let hostile = "<img src=x onerror=alert(1)>";
        let body: Markup = [
            badge(Tone::Bad, hostile),
            tiles(&[(hostile, hostile.to_owned())]),
            table(&[hostile], [vec![hostile.into(), code(hostile)]]),
            facts([(hostile.into(), code("a `<b>` c"))]),
            section(hostile, hostile, &hostile.into()),
        ]
        .into_iter()
        .collect();
        let page = page(hostile, "", &body);
        assert!(!page.contains("<img"), "{page}");
        assert!(page.contains("a <code>&lt;b&gt;</code> c"));
    }
}
