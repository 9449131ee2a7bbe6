//! Templates that are made to take memory, time or stack: each is refused, none ends the process.

use serde_json::{Value, json};

use crate::template::{ChatTemplate, ChatTemplateInput, TemplateError};

fn load(source: &str) -> Result<ChatTemplate, TemplateError> {
    // Four renderings look at what the template does; they need not run to the end of their time.
    ChatTemplate::with_limits(source, 2_000_000, 16 << 20)
}

fn render(source: &str) -> Result<String, TemplateError> {
    let messages = vec![json!({"role": "user", "content": "a b c"})];
    load(source)?.render(&ChatTemplateInput {
        messages,
        ..ChatTemplateInput::default()
    })
}

fn assert_refused(source: &str) {
    let result = render(source);
    let is_refused = matches!(result, Err(TemplateError::Limit | TemplateError::Failed(_)));
    let length = result.map(|text| text.len());
    assert!(
        is_refused,
        "{}: {length:?}",
        &source[..source.len().min(200)]
    );
}

/// Repeats an assignment to `x.s`.
fn repeated(first: &str, times: usize, expression: &str) -> String {
    format!(
        "{{% set x = namespace(s={first}) %}}{{% for i in range({times}) %}}\
         {{% set x.s = {expression} %}}{{% endfor %}}{{{{ x.s | string | length }}}}"
    )
}

#[test]
fn no_operation_makes_more_than_a_rendering_may_hold() {
    let big = "{% set n = 2000000 %}{% set s = 'a' * n %}";
    for source in [
        &repeated("'ab'", 100, "x.s + x.s"),
        &repeated("'ab'", 100, "x.s ~ x.s"),
        &repeated("'ab'", 100, "x.s * 2"),
        &repeated("'ab'", 100, "[x.s, x.s] | join"),
        &repeated("'ab'", 100, "'%s%s' | format(x.s, x.s)"),
        &repeated("'ab'", 100, "'{0}{0}'.format(x.s)"),
        &repeated("'ab'", 100, "x.s | replace('b', 'bb')"),
        &repeated("'ab'", 100, "x.s.replace('', 'bb')"),
        &repeated("'ab'", 100, "'b'.join([x.s, x.s])"),
        &repeated("['ab']", 100, "x.s + x.s"),
        &repeated("['ab']", 100, "x.s * 2"),
        &repeated("('ab',)", 100, "x.s + x.s"),
        &repeated("['ab']", 100, "[x.s, x.s]"),
        &repeated("['ab']", 100, "{'a': x.s, 'b': x.s}"),
        &repeated("('ab',)", 100, "(x.s, x.s)"),
        "{% for i in range(100000) %}{{ 'a' * 100000 }}{% endfor %}",
        "{% set n = 100000 %}{% for i in range(n) %}{{ 'a' * n }}{% endfor %}",
        "{% set n = 10000000000 %}{{ 'a' * n }}",
        "{% set n = 100000000 %}{{ (['a'] * n) | list | length }}",
        "{% set n = 100000000 %}{{ ((1,) * n) | length }}",
        "{% set n = 1000000 %}{{ ('a\n' * n) | indent(n) | length }}",
        "{% set n = 1000000 %}{{ ('a\n' * n) | indent(width=n) | length }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '%*d' | format(1000000000, 1) }}",
        "{{ '{:>1000000000}'.format('a') }}",
        "{{ '{:{}}'.format('a', 1000000000) }}",
        "{% set n = 100000 %}{{ range(n) | join('a' * n) }}",
        "{% set n = 100000 %}{{ ('a' * n).join(range(n)) }}",
        "{% set n = 100000 %}{{ ('a' * n) | replace('a', 'b' * n) }}",
        &format!("{big}{{{{ (s | list) | length }}}}"),
        &format!("{big}{{{{ s.split('a') | length }}}}"),
        &format!("{big}{{{{ s | split('a') | length }}}}"),
        &format!("{big}{{{{ s | e | e | length }}}}"),
        &format!("{big}{{% set t = [s] * 1000 | map('upper') | list %}}{{{{ t | length }}}}"),
        &format!("{big}{{{{ ([s] * 100) | map('upper') | list | length }}}}"),
        &format!(
            "{big}{{% set t %}}{{% for i in range(99) %}}{{{{ s }}}}{{% endfor %}}{{% endset %}}"
        ),
        &format!(
            "{big}{{% macro m(s) %}}{{{{ s }}}}{{{{ s }}}}{{% endmacro %}}{{{{ m(m(m(m(s)))) }}}}"
        ),
        &format!("{big}{{{{ ([s] * 100) | tojson | length }}}}"),
        &format!("{big}{{{{ s[1:] ~ s[2:] ~ s[3:] ~ s[4:] }}}}"),
        "{{ [[1]] | tojson(indent='a' * 1000) }}",
        &format!(
            "{{% macro m() %}}{}{{% endmacro %}}{{% for i in range(99999) %}}{{% set s = m() %}}{{% endfor %}}",
            "a".repeat(10_000)
        ),
        &format!(
            "{{% set s %}}{{% for i in range(99999) %}}{}{{% endfor %}}{{% endset %}}",
            "a".repeat(10_000)
        ),
    ] {
        assert_refused(source);
    }
}

#[test]
fn no_value_is_nested_without_bound() {
    for source in [
        &repeated("1", 90_000, "[x.s]"),
        &repeated("1", 90_000, "(x.s,)"),
        &repeated("1", 90_000, "{'a': x.s}"),
        &repeated("1", 90_000, "dict(a=x.s)"),
        &format!(
            "{{% set a = 1 %}}{}{{{{ a | string | length }}}}",
            "{% set a = dict(a=a, b=a) %}".repeat(100)
        ),
        "{% set a = namespace() %}{% set a.a = a %}",
        "{% set a = namespace() %}{% set a.a = [a] | reverse %}",
        "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = {'b': b} %}",
        "{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}",
    ] {
        assert_refused(source);
    }
    // What is made when it is used would be as deep, if it were not made when it is kept.
    for expression in [
        "x.s | reverse",
        "x.s[0:]",
        "x.s + [1]",
        "x.s | list",
        "x.s[::-1]",
    ] {
        let length = render(&repeated("[0]", 300, expression)).unwrap();
        assert!(length.parse::<usize>().unwrap() < 2000, "{length}");
    }
}

#[test]
fn what_would_overflow_the_compilers_stack_is_refused_when_it_is_loaded() {
    let n = 200_000;
    let nested = |before: &str, after: &str, n: usize| {
        format!("{{{{ {}x{} }}}}", before.repeat(n), after.repeat(n))
    };
    for source in [
        nested("(", ")", n),
        nested("[", "]", n),
        nested("not ", "", n),
        nested("-", "", n),
        nested("", " + x", n),
        nested("", ".a", n),
        nested("", "[0]", n),
        nested("", "|string", n),
        nested("", " and x", n),
        nested("", " < x", n),
        nested("", "**x", n),
        nested("x if x else ", "", n),
        nested("f(", ")", n),
        format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(20_000)),
        format!(
            "{}{}",
            "{% if x %}".repeat(20_000),
            "{% endif %}".repeat(20_000)
        ),
        format!(
            "{}{}",
            "{% for x in y %}".repeat(20_000),
            "{% endfor %}".repeat(20_000)
        ),
        " ".repeat(2 << 20),
    ] {
        let start = source[..40].to_owned();
        assert!(
            matches!(load(&source), Err(TemplateError::Syntax(_))),
            "{start}"
        );
    }
    // The most that is allowed.
    for source in [
        nested("", " + x", 2000),
        nested("", ".a", 2000),
        nested("", "|string", 2000),
        nested("", " and x", 2000),
        nested("not ", "", 4000),
        nested("-", "", 4000),
        nested("", "**x", 2000),
        nested("x if x else ", "", 1000),
        nested("", "|reverse", 2000),
        nested("", "[0:]", 1000),
        format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(500)),
        format!(
            "{}{}",
            "{% if true %}".repeat(140),
            "{% endif %}".repeat(140)
        ),
    ] {
        let start = source[..40].to_owned();
        assert!(
            !matches!(render(&source), Err(TemplateError::Limit)),
            "{start}"
        );
    }
}

#[test]
fn constants_are_not_multiplied_without_bound() {
    let many = |tag: &str| tag.repeat(2000);
    for source in [
        "{{ 'a' * 99999999 }}".to_owned(),
        "{{ 'a' * 9999 * 9999 }}".to_owned(),
        "{{ (1,) * 99999999 }}".to_owned(),
        "{{ 'a' * 10 ** 8 }}".to_owned(),
        "{{ 'a' * 1e8 }}".to_owned(),
        many("{{ 'a' * 99999 }}"),
    ] {
        assert!(
            matches!(load(&source), Err(TemplateError::Syntax(_))),
            "{}",
            &source[..20]
        );
    }
    assert_eq!(
        render("{{ '=' * 40 }}{{ 86400 * 365 }}{{ 2 ** 10 }}")
            .unwrap()
            .len(),
        40 + 8 + 4
    );
}

#[test]
fn filters_without_a_near_bound_are_named_when_the_template_is_loaded() {
    let error = load("{{ [1] | batch(2) }}").unwrap_err().to_string();
    assert!(error.contains("batch"), "{error}");
}

#[test]
fn arguments_within_texts_have_a_limit() {
    let call = |values: usize| {
        let arguments = Value::from(format!("[{}0]", "0,".repeat(values)));
        let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}});
        let messages = vec![json!({"role": "assistant", "content": null, "tool_calls": [call]})];
        let template = load("{{ messages[0].tool_calls[0].function.arguments | length }}").unwrap();
        template.render(&ChatTemplateInput {
            messages,
            ..ChatTemplateInput::default()
        })
    };
    assert_eq!(call(1000).unwrap(), "1001");
    assert!(matches!(call(1 << 20), Err(TemplateError::Limit)));
}

#[test]
fn what_operators_and_filters_give_has_not_changed() {
    for (source, expected) in [
        (
            "{{ 1 + 2 }} {{ 1.5 + 2 }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ (1,) + (2,) }}",
            "3 3.5 ab [1, 2] (1, 2)",
        ),
        (
            "{{ 2 * 3 }} {{ 'ab' * 2 }} {{ 2 * 'ab' }} {{ [1] * 2 }}",
            "6 abab abab [1, 1]",
        ),
        ("{{ 'a' ~ 1 ~ none ~ [1, 'b'] ~ x }}", "a1None[1, 'b']"),
        (
            "{{ 'a\nb' | indent(2) }}|{{ 'a\nb' | indent(width=1, first=true) }}",
            "a\n  b| a\n b",
        ),
        (
            "{{ '%05.1f %s' | format(1.25, 'x') }} {{ '{:>3}|{a}'.format(1, a=2) }}",
            "001.2 x   1|2",
        ),
        (
            "{{ [1, 2] | join(', ') }} {{ messages | join(',', attribute='role') }} {{ ','.join(['a', 'b']) }}",
            "1, 2 user a,b",
        ),
        (
            "{{ 'aXbX' | replace('X', '--') }} {{ 'aa'.replace('a', 'b', 1) }}",
            "a--b-- ba",
        ),
        (
            "{{ ' a b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b' | split }} {{ 'a\nb'.splitlines() }}",
            "['a', 'b'] ['a', 'b,c'] ['a', 'b'] ['a', 'b']",
        ),
        (
            "{% set n = namespace(i=0, l=[]) %}{% for i in range(3) %}{% set n.i = n.i + i %}{% set n.l = n.l + [i] %}{% endfor %}{{ n.i }} {{ n.l }} {{ n.l | length }}",
            "3 [0, 1, 2] 3",
        ),
        (
            "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}{{ m(1) }}{{ m(*[3, 4]) }}{{ m(5, **{'b': 6}) }}{% call m(7) %}c{% endcall %}",
            "12345672c",
        ),
        (
            "{% for i in [1, [2, [3]]] recursive %}{{ loop(i) if i is not number else i }}{% endfor %}",
            "123",
        ),
        (
            "{% for i in range(6) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% else %}none{% endfor %}",
            "023",
        ),
        (
            "{{ 'a' if false else 'b' }}{{ x or 'c' }}{{ 1 < 2 < 3 }}{{ true and not false }}",
            "bcTrueTrue",
        ),
        (
            "{% filter upper %}ab{% endfilter %}{% set s %}c{{ 1 }}{% endset %}{{ s }}{% block b %}d{% endblock %}",
            "ABc1d",
        ),
        (
            "{{ '<a>' | e }}{% autoescape true %}{{ '<b>' }}{% endautoescape %}",
            "&lt;a&gt;&lt;b&gt;",
        ),
        (
            "{{ messages | map(attribute='role') | list }}{{ ['a'] | map('upper') | list }}{{ 'ab' | list }}{{ 3 | string }}",
            "['user']['A']['a', 'b']3",
        ),
        ("{{ {'a': 1, **{}} if false else {'b': [1, (2,)]} }}", ""),
    ] {
        match render(source) {
            Ok(text) => assert_eq!(text, expected, "{source}"),
            Err(TemplateError::Syntax(_)) => assert_eq!(expected, "", "{source}"),
            Err(error) => panic!("{source}: {error}"),
        }
    }
}
