//! What a template asks for in vain is found when it is loaded.

use super::{ChatTemplate, TemplateError, render};

fn refusal(source: &str) -> String {
    match ChatTemplate::from_source(source) {
        Err(TemplateError::Unsupported(names)) => names,
        other => panic!("{source}: {other:?}"),
    }
}

fn doubtful(source: &str) -> Vec<String> {
    let template = ChatTemplate::from_source(source).unwrap();
    template.doubtful().to_vec()
}

#[test]
fn everything_that_is_missing_is_named_with_its_line() {
    let source =
        "{{ a|nope }}\n{{ b is odder }}\n{{ unheard(1) }}\n{{ c|truncate(3) }}\n{{ 'x'.encode() }}";
    assert_eq!(
        refusal(source),
        "filter `nope` (line 1), test `odder` (line 2), function `unheard` (line 3), \
         filter `truncate` (line 4), method `encode` (line 5)"
    );
    for (source, expected) in [
        ("{% include 'x' %}", "`include` (line 1)"),
        ("{% import 'x' as y %}", "`import` (line 1)"),
        ("{% from 'x' import y %}", "`from … import` (line 1)"),
        ("{% extends 'x' %}", "`extends` (line 1)"),
        (
            "{% macro m() %}{{ varargs }}{% endmacro %}",
            "`varargs` (line 1)",
        ),
        (
            "{% set x %}{{ s|nope }}{% endset %}",
            "filter `nope` (line 1)",
        ),
        ("{% filter nope %}{% endfilter %}", "filter `nope` (line 1)"),
        (
            "{% for a in b|nope %}{% endfor %}",
            "filter `nope` (line 1)",
        ),
        (
            "{{ f(a, *b|nope) }}{% macro f() %}{% endmacro %}",
            "filter `nope` (line 1)",
        ),
        ("{{ [{'a': b|nope}][0] }}", "filter `nope` (line 1)"),
        ("{% call nope() %}{% endcall %}", "function `nope` (line 1)"),
        // As in jinja2, a loop within a condition must be in order.
        (
            "{% if x %}{% for a in b %}{{ a|nope }}{% endfor %}{% endif %}",
            "filter `nope` (line 1)",
        ),
        // What jinja2 has is needed, wherever it stands.
        (
            "{% if x %}{{ a|truncate }}{% endif %}",
            "filter `truncate` (line 1)",
        ),
    ] {
        assert_eq!(refusal(source), expected, "{source}");
    }
    let many = "{{ a|nope }}".repeat(1000);
    assert_eq!(refusal(&many).matches("nope").count(), 32);
}

#[test]
fn what_only_a_condition_reaches_is_doubtful_as_in_jinja2() {
    let source =
        "{% if x is string %}{{ x|from_json }}{% endif %}{{ y.later() }}{{ 'a' if y else z|nope }}";
    assert_eq!(
        doubtful(source),
        [
            "filter `from_json` (line 1)",
            "method `later` (line 1)",
            "filter `nope` (line 1)"
        ]
    );
    assert!(matches!(
        render("{% if x is mapping %}{{ x|from_json }}{% endif %}"),
        Err(TemplateError::Failed(_))
    ));
}

#[test]
fn names_of_the_template_itself_are_known() {
    for source in [
        "{% macro m(f) %}{{ f() }}{{ caller() }}{{ m(f) }}{% endmacro %}",
        "{% set ns = namespace(f=1) %}{% macro f() %}{% endmacro %}{% set ns.f = f %}{{ ns.f() }}",
        "{% for x in [] recursive %}{{ loop(x) }}{{ loop.cycle(1) }}{% endfor %}",
        "{% set _ = [].append(1) %}{{ {}.pop('a') }}",
        "{% with f = range %}{{ f(3) }}{% endwith %}",
        "{{ dict(a=1) }}{{ namespace().x }}{{ strftime_now('%d') }}",
    ] {
        assert_eq!(doubtful(source), Vec::<String>::new(), "{source}");
    }
}
