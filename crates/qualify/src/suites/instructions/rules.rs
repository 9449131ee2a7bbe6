//! Instructions that a program can check: how they are put, and when they are kept.
//!
//! Where IFEval (Zhou et al., 2023) has an instruction of the kind, it is checked as there: words are runs of letters, digits
//! and underscores, phrases are compared without case, and paragraphs are what `***` divides.

use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::Value;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    WordsAtLeast(usize),
    WordsAtMost(usize),
    Paragraphs(usize),
    Include(Vec<String>),
    Forbid(Vec<String>),
    Frequency { word: String, at_least: usize },
    Letter { letter: char, at_least: usize },
    Bullets(usize),
    Numbered(usize),
    Sections(usize),
    TwoAnswers,
    Json,
    Title,
    Highlighted(usize),
    Placeholders(usize),
    Upper,
    Lower,
    CapitalsAtLeast(usize),
    CapitalsAtMost(usize),
    NoCommas,
    NoDigits,
    NoExclamations,
    Start(String),
    End(String),
    Quoted,
    Postscript,
}

impl Rule {
    /// Its name, `GROUP:KIND`.
    pub(crate) fn id(&self) -> &'static str {
        match self {
            Self::WordsAtLeast(_) => "length:words_at_least",
            Self::WordsAtMost(_) => "length:words_at_most",
            Self::Paragraphs(_) => "length:paragraphs",
            Self::Include(_) => "keywords:include",
            Self::Forbid(_) => "keywords:forbid",
            Self::Frequency { .. } => "keywords:frequency",
            Self::Letter { .. } => "keywords:letter",
            Self::Bullets(_) => "format:bullets",
            Self::Numbered(_) => "format:numbered",
            Self::Sections(_) => "format:sections",
            Self::TwoAnswers => "format:two_answers",
            Self::Json => "format:json",
            Self::Title => "format:title",
            Self::Highlighted(_) => "format:highlighted",
            Self::Placeholders(_) => "format:placeholders",
            Self::Upper => "case:upper",
            Self::Lower => "case:lower",
            Self::CapitalsAtLeast(_) => "case:capitals_at_least",
            Self::CapitalsAtMost(_) => "case:capitals_at_most",
            Self::NoCommas => "characters:no_commas",
            Self::NoDigits => "characters:no_digits",
            Self::NoExclamations => "characters:no_exclamations",
            Self::Start(_) => "ends:start",
            Self::End(_) => "ends:end",
            Self::Quoted => "ends:quoted",
            Self::Postscript => "ends:postscript",
        }
    }

    /// How it is put.
    pub(crate) fn put(&self) -> String {
        match self {
            Self::WordsAtLeast(words) => format!("Answer with at least {words} words."),
            Self::WordsAtMost(words) => format!("Answer with at most {words} words."),
            Self::Paragraphs(paragraphs) => format!(
                "Write exactly {paragraphs} paragraphs, and separate them with the divider *** on a line of its own."
            ),
            Self::Include(words) => format!("Use each of these words: {}.", words.join(", ")),
            Self::Forbid(words) => format!("Do not use any of these words: {}.", words.join(", ")),
            Self::Frequency { word, at_least } => {
                format!("Use the word \"{word}\" at least {at_least} times.")
            }
            Self::Letter { letter, at_least } => {
                format!("The letter {letter} should appear at least {at_least} times.")
            }
            Self::Bullets(points) => format!(
                "Your answer must have exactly {points} bullet points in markdown, each on a line that begins with \"- \"."
            ),
            Self::Numbered(items) => format!(
                "Your answer must have a numbered list of exactly {items} items, each on a line that begins with its number \
                 and a full stop, such as \"1.\"."
            ),
            Self::Sections(sections) => format!(
                "Divide your answer into exactly {sections} sections, and begin each with a line that says SECTION and its \
                 number, such as SECTION 1."
            ),
            Self::TwoAnswers => "Give two different answers, separated by six asterisks (******) on a line of their own, \
                                 and nothing else."
                .into(),
            Self::Json => "Your whole answer has to be one JSON object.".into(),
            Self::Title => "Give your answer a title in double angle brackets, such as <<a title>>.".into(),
            Self::Highlighted(times) => {
                format!("Highlight at least {times} parts of your answer in markdown, such as *this part*.")
            }
            Self::Placeholders(times) => format!(
                "Use at least {times} placeholders in square brackets, such as [name]."
            ),
            Self::Upper => "Write your whole answer in capital letters.".into(),
            Self::Lower => "Write your whole answer in lowercase letters; no capital letters are allowed.".into(),
            Self::CapitalsAtLeast(words) => {
                format!("Use at least {words} words that are written all in capital letters.")
            }
            Self::CapitalsAtMost(words) => format!(
                "Use at most {words} words that are written all in capital letters; \"I\" and \"A\" count as such."
            ),
            Self::NoCommas => "Do not use any commas.".into(),
            Self::NoDigits => "Do not use any digits; write numbers as words.".into(),
            Self::NoExclamations => "Do not use any exclamation marks.".into(),
            Self::Start(phrase) => {
                format!("Begin your answer with exactly these words: \"{phrase}\"")
            }
            Self::End(phrase) => format!(
                "End your answer with exactly these words, and with nothing behind them: \"{phrase}\""
            ),
            Self::Quoted => "Put your whole answer in double quotation marks.".into(),
            Self::Postscript => "Add a postscript that begins with P.S. at the end.".into(),
        }
    }

    /// Places in an answer that it takes for itself. Two that take the same could contradict each other.
    pub(crate) fn takes(&self) -> &'static [&'static str] {
        match self {
            Self::WordsAtLeast(_) | Self::WordsAtMost(_) => &["length"],
            Self::Paragraphs(_) | Self::Bullets(_) | Self::TwoAnswers => &["shape"],
            Self::Numbered(_) => &["shape", "digits"],
            Self::Sections(_) => &["shape", "digits", "case", "opening"],
            Self::Json => &["shape", "opening", "closing", "case", "commas"],
            Self::Upper | Self::Lower | Self::CapitalsAtLeast(_) | Self::CapitalsAtMost(_) => {
                &["case"]
            }
            Self::NoCommas => &["commas"],
            Self::NoDigits => &["digits"],
            Self::NoExclamations => &["exclamations"],
            Self::Start(_) => &["opening"],
            Self::End(phrase) if phrase.contains('!') => &["closing", "exclamations"],
            Self::End(_) | Self::Postscript => &["closing"],
            Self::Quoted => &["shape", "opening", "closing"],
            Self::Include(_) => &["include"],
            Self::Forbid(_) => &["forbid"],
            Self::Frequency { .. } => &["frequency"],
            Self::Letter { .. } => &["letter"],
            Self::Title => &["title"],
            Self::Highlighted(_) => &["highlighted"],
            Self::Placeholders(_) => &["placeholders"],
        }
    }

    /// Whether an answer keeps it. An empty answer keeps nothing.
    pub(crate) fn holds(&self, answer: &str) -> bool {
        !answer.trim().is_empty() && self.holds_of_text(answer)
    }

    fn holds_of_text(&self, answer: &str) -> bool {
        match self {
            Self::WordsAtLeast(least) => words(answer).count() >= *least,
            Self::WordsAtMost(most) => words(answer).count() <= *most,
            Self::Paragraphs(number) => {
                divided(answer, "***").is_some_and(|parts| parts == *number)
            }
            Self::Include(all) => all.iter().all(|word| count_word(answer, word) > 0),
            Self::Forbid(all) => all.iter().all(|word| count_word(answer, word) == 0),
            Self::Frequency { word, at_least } => count_word(answer, word) >= *at_least,
            Self::Letter { letter, at_least } => {
                let letters = answer.chars().flat_map(char::to_lowercase);
                letters.filter(|other| other == letter).count() >= *at_least
            }
            Self::Bullets(number) => {
                answer.lines().filter(|line| is_bullet(line)).count() == *number
            }
            Self::Numbered(number) => {
                let numbers: Vec<usize> = answer.lines().filter_map(list_number).collect();
                numbers.len() == *number && numbers.iter().copied().eq(1..=*number)
            }
            Self::Sections(number) => {
                let numbers: Vec<usize> = answer.lines().filter_map(section_number).collect();
                numbers.len() == *number && numbers.iter().copied().eq(1..=*number)
            }
            Self::TwoAnswers => {
                let parts: Vec<&str> = answer.split("******").map(str::trim).collect();
                matches!(parts[..], [one, other] if !one.is_empty() && !other.is_empty() && one != other)
            }
            Self::Json => {
                let value: Option<Value> = serde_json::from_str(without_fence(answer)).ok();
                value.is_some_and(|value| value.is_object())
            }
            Self::Title => TITLE.find_iter(answer).any(|title| {
                !title
                    .as_str()
                    .trim_matches(['<', '>', ' ', '\t'])
                    .is_empty()
            }),
            Self::Highlighted(least) => highlights(answer) >= *least,
            Self::Placeholders(least) => PLACEHOLDER.find_iter(answer).count() >= *least,
            Self::Upper => has_case(answer) && !answer.chars().any(char::is_lowercase),
            Self::Lower => has_case(answer) && !answer.chars().any(char::is_uppercase),
            Self::CapitalsAtLeast(least) => capitals(answer) >= *least,
            Self::CapitalsAtMost(most) => capitals(answer) <= *most,
            Self::NoCommas => !answer.contains([',', '，', '、', '،']),
            Self::NoDigits => !answer.chars().any(char::is_numeric),
            Self::NoExclamations => !answer.contains(['!', '！', '¡']),
            Self::Start(phrase) => folded(answer.trim_start()).starts_with(&folded(phrase)),
            Self::End(phrase) => folded(answer.trim().trim_matches('"')).ends_with(&folded(phrase)),
            Self::Quoted => {
                let text = answer.trim();
                text.len() > 1 && text.starts_with('"') && text.ends_with('"')
            }
            Self::Postscript => answer
                .lines()
                .any(|line| folded(line.trim_start()).starts_with("p.s.")),
        }
    }
}

static TITLE: LazyLock<Regex> = LazyLock::new(|| regex("<<[^\n]+>>"));
static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| regex(r"\[[^\[\]\n]+\]"));
static HIGHLIGHT: LazyLock<Regex> = LazyLock::new(|| regex(r"\*[^\n*]*\*"));
static BOLD: LazyLock<Regex> = LazyLock::new(|| regex(r"\*\*[^\n*]*\*\*"));

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("it is written here")
}

fn folded(text: &str) -> String {
    text.to_lowercase().replace(['’', '‘'], "'")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_edge = |character: char| !(character.is_alphanumeric() || character == '_');
    text.split(is_edge).filter(|word| !word.is_empty())
}

fn count_word(text: &str, word: &str) -> usize {
    words(text)
        .filter(|other| other.to_lowercase() == word)
        .count()
}

/// How many parts a divider makes. None of them is empty, but what is before a divider at the very begin or behind one at the
/// very end is no part.
fn divided(text: &str, divider: &str) -> Option<usize> {
    let parts: Vec<&str> = text.split(divider).map(str::trim).collect();
    let inner = parts
        .iter()
        .enumerate()
        .filter(|(index, part)| !(part.is_empty() && (*index == 0 || *index == parts.len() - 1)));
    let inner: Vec<&&str> = inner.map(|(_, part)| part).collect();
    (!inner.iter().any(|part| part.is_empty())).then_some(inner.len())
}

fn is_bullet(line: &str) -> bool {
    let line = line.trim_start();
    match line.strip_prefix('*') {
        Some(rest) => !rest.starts_with('*') && !rest.is_empty(),
        None => line.starts_with('-') && !line.starts_with("---"),
    }
}

fn list_number(line: &str) -> Option<usize> {
    let line = line.trim_start();
    let end = line.find(|character: char| !character.is_ascii_digit())?;
    let rest = &line[end..];
    let is_item = rest.starts_with(". ") || rest.starts_with(") ") || rest == "." || rest == ")";
    if is_item {
        line[..end].parse().ok()
    } else {
        None
    }
}

fn section_number(line: &str) -> Option<usize> {
    let line = line.trim().trim_matches(['#', '*', ' ']);
    let number = line.strip_prefix("SECTION ")?;
    let end = number
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(number.len());
    number[..end].parse().ok()
}

fn without_fence(text: &str) -> &str {
    let text = text.trim();
    let inner = ["```json", "```JSON", "```"]
        .iter()
        .find_map(|fence| text.strip_prefix(fence));
    inner
        .and_then(|inner| inner.strip_suffix("```"))
        .unwrap_or(text)
}

fn highlights(text: &str) -> usize {
    let is_filled =
        |found: &regex_lite::Match<'_>| !found.as_str().trim_matches(['*', ' ']).is_empty();
    HIGHLIGHT.find_iter(text).filter(is_filled).count()
        + BOLD.find_iter(text).filter(is_filled).count()
}

fn has_case(text: &str) -> bool {
    text.chars()
        .any(|character| character.is_lowercase() || character.is_uppercase())
}

fn capitals(text: &str) -> usize {
    words(text)
        .filter(|word| has_case(word) && !word.chars().any(char::is_lowercase))
        .count()
}

#[cfg(test)]
mod tests;
