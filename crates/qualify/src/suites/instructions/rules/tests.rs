use super::*;

#[track_caller]
fn check(rule: &Rule, kept: &[&str], broken: &[&str]) {
    for answer in kept {
        assert!(rule.holds(answer), "{rule:?} {answer:?}");
    }
    for answer in broken.iter().chain(&["", " \n"]) {
        assert!(!rule.holds(answer), "{rule:?} {answer:?}");
    }
}

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn lengths() {
    check(
        &Rule::WordsAtLeast(3),
        &["one two three", "a-b c.", "é ü 3 4"],
        &["one two", "one ... !"],
    );
    check(
        &Rule::WordsAtMost(3),
        &["one two three", "— one —"],
        &["one two three four", "a-b-c-d"],
    );
    check(
        &Rule::Paragraphs(2),
        &[
            "one\n***\ntwo",
            "one\n\n***\n\ntwo\n***",
            "***\none *** two",
        ],
        &[
            "one",
            "one\n\ntwo",
            "one\n***\n***\ntwo",
            "one\n***\ntwo\n***\nthree",
            "***",
        ],
    );
}

#[test]
fn keywords() {
    check(
        &Rule::Include(list(&["lantern", "kettle"])),
        &["Lantern, KETTLE.", "the kettle/lantern"],
        &["lantern", "lanterns and kettles", "lantern kettledrum"],
    );
    check(
        &Rule::Forbid(list(&["nice"])),
        &["niceness", "fine"],
        &["Nice!", "a nice-ish day"],
    );
    let frequency = Rule::Frequency {
        word: "anchor".into(),
        at_least: 2,
    };
    check(
        &frequency,
        &["Anchor anchor", "anchor, anchor; anchor"],
        &["anchor", "anchoranchor"],
    );
    let letter = Rule::Letter {
        letter: 'q',
        at_least: 3,
    };
    check(&letter, &["qQ quick", "qqqq"], &["qq", "none"]);
}

#[test]
fn shapes() {
    check(
        &Rule::Bullets(2),
        &["- a\n- b", "Intro:\n* a\n  - b\nOutro", "* a\n* **b**"],
        &[
            "- a",
            "- a\n- b\n- c",
            "1. a\n2. b",
            "**a**\n**b**",
            "---\n- a",
        ],
    );
    check(
        &Rule::Numbered(2),
        &["1. a\n2. b", "List:\n 1) a\n 2) b\n"],
        &[
            "1. a",
            "1. a\n2. b\n3. c",
            "- a\n- b",
            "2. a\n1. b",
            "1. a\n1. b",
            "1.5 a\n2.5 b",
        ],
    );
    check(
        &Rule::Sections(2),
        &[
            "SECTION 1\na\nSECTION 2\nb",
            "## SECTION 1: a\nb\n**SECTION 2**\nc",
        ],
        &[
            "SECTION 1\na",
            "Section 1\na\nSection 2\nb",
            "SECTION 1\nSECTION 3",
            "SECTION one\nSECTION two",
        ],
    );
    check(
        &Rule::TwoAnswers,
        &["one\n******\ntwo"],
        &[
            "one",
            "one\n******\none",
            "one\n******",
            "a ****** b ****** c",
            "one\n***\ntwo",
        ],
    );
    check(
        &Rule::Json,
        &["{\"a\": 1}", "```json\n{}\n```", " {} "],
        &["[1]", "{a: 1}", "Here: {}", "\"text\"", "{} {}"],
    );
    check(
        &Rule::Title,
        &["<<A title>>\ntext", "a <<b>> c"],
        &["<<>>", "<< >>", "<A title>", "<<A\ntitle>>"],
    );
    check(
        &Rule::Highlighted(2),
        &["*a* and *b c*", "**a** and *b*"],
        &["*a*", "** and **", "* a\n* b", "***\n***"],
    );
    check(
        &Rule::Placeholders(2),
        &["[a] [b c]"],
        &["[a]", "[] []", "(a) (b)", "[a\nb] [c]"],
    );
}

#[test]
fn cases() {
    check(
        &Rule::Upper,
        &["ALL OF IT.", "ÄÖ 12"],
        &["All", "ALL but", "123"],
    );
    check(
        &Rule::Lower,
        &["all of it.", "äö 12"],
        &["All", "all Ö", "123"],
    );
    check(
        &Rule::CapitalsAtLeast(2),
        &["ONE TWO three", "A B"],
        &["ONE two", "One Two", "1 2"],
    );
    assert!(Rule::CapitalsAtMost(1).holds("ONE two Three"));
    assert!(!Rule::CapitalsAtMost(1).holds("ONE TWO"));
}

#[test]
fn characters() {
    check(&Rule::NoCommas, &["a; b."], &["a, b", "a，b"]);
    check(&Rule::NoDigits, &["twenty"], &["2", "a3", "½", "٣"]);
    check(&Rule::NoExclamations, &["a."], &["a!", "¡a"]);
}

#[test]
fn ends() {
    let start = Rule::Start("Let us begin".into());
    check(
        &start,
        &["Let us begin: ...", "\nlet us begin"],
        &["Well, let us begin", "Let's begin", "\"Let us begin"],
    );
    let end = Rule::End("And so it goes.".into());
    check(
        &end,
        &["Yes. And so it goes.", "\"Yes. and so it goes.\"\n"],
        &[
            "And so it goes. Yes.",
            "And so it goes",
            "And so it goes.\n\nP.S. No.",
        ],
    );
    check(
        &Rule::Quoted,
        &["\"a\"", " \"a \"b\" c\"\n"],
        &["a", "\"a", "\"", "\"a\".", "“a”"],
    );
    check(
        &Rule::Postscript,
        &["a\nP.S. b", "a\n  p.s. b"],
        &["a P.S. b", "PS b", "P.P.S."],
    );
}
