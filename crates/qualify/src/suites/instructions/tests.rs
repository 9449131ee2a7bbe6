use super::*;
use crate::record::Outcome;
use crate::suites::testing::{assert_perfect, attempts, measuring, said, values};

const DEFINITION: &str = include_str!("../../../suites/instructions.toml");

fn suite() -> Instructions {
    Instructions::new(0, PROMPTS_DEFAULT, measuring(DEFINITION)).unwrap()
}

/// An answer that keeps all of these, which shows that they do not contradict one another.
fn compose(rules: &[Rule]) -> String {
    let find = |is_it: fn(&Rule) -> bool| rules.iter().find(|rule| is_it(rule));
    let mut body = vec!["the wind is calm".to_owned()];
    for rule in rules {
        match rule {
            Rule::WordsAtLeast(words) => body.push("calm ".repeat(*words)),
            Rule::Include(words) => body.push(words.join(" ")),
            Rule::Frequency { word, at_least } => body.push(format!("{word} ").repeat(*at_least)),
            Rule::Letter { letter, at_least } => body.push(letter.to_string().repeat(*at_least)),
            Rule::Title => body.push("<<calm>>".into()),
            Rule::Highlighted(times) => body.push("*calm* ".repeat(*times)),
            Rule::Placeholders(times) => body.push("[calm] ".repeat(*times)),
            Rule::CapitalsAtLeast(words) => body.push("CALM ".repeat(*words)),
            _ => {}
        }
    }
    let body = body.join(" ");
    let lines = |mark: &dyn Fn(usize) -> String, number: usize| {
        let rest =
            (2..=number).map(|number| format!("{}calm {}", mark(number), "so ".repeat(number)));
        let first = format!("{}{body}", mark(1));
        std::iter::once(first)
            .chain(rest)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let shape = rules.iter().find(|rule| rule.takes().contains(&"shape"));
    let mut text = match shape {
        Some(Rule::Paragraphs(number)) => {
            lines(&|at| (if at == 1 { "" } else { "***\n" }).into(), *number)
        }
        Some(Rule::Bullets(number)) => lines(&|_| "- ".into(), *number),
        Some(Rule::Numbered(number)) => lines(&|at| format!("{at}. "), *number),
        Some(Rule::Sections(number)) => lines(&|at| format!("SECTION {at}\n"), *number),
        Some(Rule::TwoAnswers) => format!("{body}\n******\nno wind"),
        Some(Rule::Json) => json!({"text": body}).to_string(),
        _ => body.clone(),
    };
    if let Some(Rule::Start(phrase)) = find(|rule| matches!(rule, Rule::Start(_))) {
        text = format!("{phrase}\n{text}");
    }
    if let Some(Rule::End(phrase)) = find(|rule| matches!(rule, Rule::End(_))) {
        text = format!("{text}\n{phrase}");
    }
    if find(|rule| *rule == Rule::Postscript).is_some() {
        text += "\nP.S. calm";
    }
    if find(|rule| *rule == Rule::Upper).is_some() {
        text = text.to_uppercase();
    }
    if find(|rule| *rule == Rule::Lower).is_some() {
        text = text.to_lowercase();
    }
    if find(|rule| *rule == Rule::Quoted).is_some() {
        text = format!("\"{text}\"");
    }
    text
}

#[test]
fn every_prompt_can_be_kept_and_who_keeps_all_has_one_everywhere() {
    let suite = suite();
    let attempts = attempts(&suite, |task, _, _| {
        said(compose(&suite.prompts[task].rules))
    });
    assert_perfect(&attempts);
    let values = values(&suite.measures(&attempts));
    assert_eq!(values.len(), 4 + 6);
    assert!(values.values().all(|value| *value == 1.0), "{values:?}");
}

#[test]
fn who_says_nothing_has_zero() {
    let suite = suite();
    let attempts = attempts(&suite, |_, _, _| said(" "));
    assert!(
        attempts
            .iter()
            .all(|attempt| attempt.outcome == Outcome::Failed)
    );
    let values = values(&suite.measures(&attempts));
    assert!(values.values().all(|value| *value == 0.0), "{values:?}");
}

#[test]
fn prompts_are_distinct_and_the_same_for_the_same_seed() {
    let suite = suite();
    let texts: HashSet<&str> = suite
        .prompts
        .iter()
        .map(|prompt| prompt.text.as_str())
        .collect();
    assert_eq!(texts.len(), PROMPTS_DEFAULT);
    assert_eq!(suite.prompts, self::suite().prompts);
    let other = Instructions::new(1, PROMPTS_DEFAULT, measuring(DEFINITION)).unwrap();
    assert_ne!(suite.prompts, other.prompts);
}

#[test]
fn all_instructions_come_up_and_prompts_have_up_to_three() {
    let suite = suite();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in suite.prompts.iter().flat_map(|prompt| &prompt.rules) {
        *counts.entry(rule.id()).or_default() += 1;
    }
    assert_eq!(counts.len(), KINDS);
    assert!(counts.values().all(|count| *count >= 7), "{counts:?}");
    for number in 1..=RULES_MAX {
        let of_number = suite
            .prompts
            .iter()
            .filter(|prompt| prompt.rules.len() == number);
        assert!(of_number.count() >= 40, "{number}");
    }
}

#[test]
fn no_prompt_asks_for_a_word_that_it_forbids() {
    let parts: Parts = read_json("", PROMPTS).unwrap();
    for word in parts.words {
        assert!(!parts.forbidden.contains(&word));
    }
    for phrase in parts.openings.iter().chain(&parts.endings) {
        assert!(
            Rule::Forbid(parts.forbidden.clone()).holds(phrase),
            "{phrase}"
        );
        assert!(Rule::NoDigits.holds(phrase) && Rule::NoCommas.holds(phrase));
    }
}

#[test]
fn loose_accuracy_forgives_what_ifevals_does() {
    let rule = Rule::Start("Let us begin".into());
    let marks = |rules: &[Rule], answer: &str| {
        let prompt = Prompt {
            text: String::new(),
            rules: rules.to_vec(),
        };
        match judge(&prompt, &said(answer)) {
            Step::Judged(judgement) => (
                judgement.marks["strict"].clone(),
                judgement.marks["loose"].clone(),
                judgement.score,
            ),
            Step::Ask(_) => panic!("it is answered"),
        }
    };
    let one = std::slice::from_ref(&rule);
    assert_eq!(
        marks(one, "Sure!\nLet us begin"),
        (json!([false]), json!([true]), 0.0)
    );
    assert_eq!(
        marks(one, "**Let us begin**"),
        (json!([false]), json!([true]), 0.0)
    );
    assert_eq!(
        marks(one, "Sure! Let us begin"),
        (json!([false]), json!([false]), 0.0)
    );
    let end = Rule::End("And so it goes.".into());
    let both = [rule, end];
    let fenced = "Sure:\nLet us begin. And so it goes.\nI hope you like it.";
    assert_eq!(
        marks(&both, fenced),
        (json!([false, false]), json!([true, true]), 0.0)
    );
    assert_eq!(
        marks(&both, "Let us begin."),
        (json!([true, false]), json!([true, false]), 0.5)
    );
}

#[test]
fn the_levels_are_counted_as_ifeval_does() {
    let attempt = |strict: Value, ids: Value| Attempt {
        marks: BTreeMap::from([
            ("instructions".into(), ids),
            ("loose".into(), strict.clone()),
            ("strict".into(), strict),
        ]),
        ..attempts(&suite(), |_, _, _| said("x")).remove(0)
    };
    let mut list = vec![
        attempt(
            json!([true, false, true]),
            json!(["case:upper", "ends:end", "length:words_at_most"]),
        ),
        attempt(json!([true]), json!(["case:lower"])),
    ];
    list[1].task = "other".into();
    let values = values(&measures(&measuring(DEFINITION), &list));
    assert_eq!(values["prompt_strict"], 0.5);
    assert_eq!(values["instruction_strict"], 0.75);
    assert_eq!(values["instruction_strict_case"], 1.0);
    assert_eq!(values["instruction_strict_ends"], 0.0);
}
