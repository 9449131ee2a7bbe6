//! Tests of template semantics, each against what Jinja2 under Hugging Face's settings gives.

use serde_json::{Value, json};

mod hostile;
mod survey;

use super::{ChatTemplate, ChatTemplateInput, ContentFormat, Plainness, TemplateError};

fn input(messages: Value) -> ChatTemplateInput {
    let Value::Array(messages) = messages else {
        panic!("messages are a list")
    };
    ChatTemplateInput {
        messages,
        add_generation_prompt: true,
        bos_token: Some("<s>".to_owned()),
        now_unix_seconds: 1_762_000_000,
        ..ChatTemplateInput::default()
    }
}

fn render(source: &str) -> Result<String, TemplateError> {
    let mut input = input(json!([{"role": "user", "content": "Hi <b> & 'é'"}]));
    input.extra.insert(
        "x".to_owned(),
        json!({"b": [1, 2.0, true, null], "a": {}, "ü": "\"\\\u{1}\n</x>"}),
    );
    ChatTemplate::from_source(source)?.render(&input)
}

#[test]
fn agrees_with_jinja2() {
    let cases = [
        ("{% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb"),
        (
            "{% for m in messages %}\n{{ m['role'] }}: {{ m.content }}\n{% endfor %}\n",
            "user: Hi <b> & 'é'\n",
        ),
        (
            "{{ none }} {{ true }} {{ missing }} {{ [1, none, 'a', false] }}",
            "None True  [1, None, 'a', False]",
        ),
        (
            "{{ x | tojson }}",
            r#"{"b": [1, 2.0, true, null], "a": {}, "ü": "\"\\\u0001\n</x>"}"#,
        ),
        (
            "{{ x.b | tojson(indent=2) }}",
            "[\n  1,\n  2.0,\n  true,\n  null\n]",
        ),
        (
            "{{ {'a': [], 'c': {'d': 1}} | tojson(false, 4) }}",
            "{\n    \"a\": [],\n    \"c\": {\n        \"d\": 1\n    }\n}",
        ),
        (
            "{{ {'b': 'é🦀', 'a': 1} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}",
            r#"{"a":1,"b":"\u00e9\ud83e\udd80"}"#,
        ),
        (
            "{{ {2: 2, none: 3, true: 1.5e-7} | tojson }}",
            r#"{"2": 2, "null": 3, "true": 1.5e-07}"#,
        ),
        (
            "{{ tools is none }}{{ tools is defined }}{{ documents or 'no' }}{{ eos_token is defined }}",
            "TrueTruenoFalse",
        ),
        ("{{ bos_token }}{{ add_generation_prompt }}", "<s>True"),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "023",
        ),
        (
            "{{ 'a b'.split()[-1].upper().strip() ~ x.get('z', 'd') ~ 'xay'.replace('a', '-') }}",
            "Bdx-y",
        ),
        (
            "{% for k, v in x.items() %}{{ k }}{{ loop.last }} {% endfor %}",
            "bFalse aFalse üTrue ",
        ),
        (
            "{{ 'ab' is sequence }}{{ x is sequence }}{{ 'ab' is iterable }}{{ 3 is iterable }}{{ tools is iterable }}{{ x is mapping }}",
            "TrueTrueTrueFalseFalseTrue",
        ),
        (
            "{%- set ns = namespace(n=0) -%}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        ),
        (
            "{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%Y-%m-%d') }}",
            "01 Nov 2025|2025-11-01",
        ),
        ("a {% generation %}\nb{%- endgeneration -%} c", "a bc"),
        (
            "{{ messages[0]['content'][:2] }}{{ messages[-1].role }}{{ messages | length }}",
            "Hiuser1",
        ),
        (
            "{{ x['b'] | join(',') if x.b is iterable and x.b is not string }}",
            "1,2.0,True,None",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
}

#[test]
fn values_are_written_as_python_writes_them() {
    let cases = [
        (
            "{{ 1e-5 }} {{ 1e16 }} {{ [1e-5, 1.0, 'a', none, true] }}",
            "1e-05 1e+16 [1e-05, 1.0, 'a', None, True]",
        ),
        (
            "{% set f = 1e-5 %}{{ f ~ '' }} {{ f | string }} {{ [f] | join }} {{ '%s' % f }} {{ '{}'.format(f) }}",
            "1e-05 1e-05 1e-05 1e-05 1e-05",
        ),
        (
            "{{ (1,) }} {{ x.items() | list | length }} {{ x.keys() }}",
            "(1,) 3 dict_keys(['b', 'a', 'ü'])",
        ),
        (
            "{{ '%5.1f|%-4s|%(a)s' % {'a': 1} if false else '%5.1f|%-4s|%%' % (2.25, 'é') }}",
            "  2.2|é   |%",
        ),
        (
            "{{ 'a b  c'.split(none, 1) }} {{ 'a.b.c'.rsplit('.', 1) }} {{ 'abc'[::-1] }} {{ 'abc'[2:0:-1] }}",
            "['a', 'b  c'] ['a.b', 'c'] cba cb",
        ),
        (
            "{{ \"it's\".title() }} {{ 'xxaxx'.strip('x') }} {{ 'ab'.zfill(4) }} {{ 'a-b'.partition('-') }}",
            "It'S a 00ab ('a', '-', 'b')",
        ),
        (
            "{{ x.items is defined }} {{ {'items': 1}['items'] }} {{ {'items': 1}.items() | list }}",
            "True 1 [('items', 1)]",
        ),
        (
            "{% for k in {'a': 1} | items %}{{ k }}{{ loop.last }}{% endfor %}",
            "('a', 1)True",
        ),
        ("{{ '<a>' | safe + '\"' }} {{ '\"' | e }}", "<a>&#34; &#34;"),
        (
            "{{ missing | length }}{{ missing | list }}{{ missing ~ 'x' }}{{ 'a' in missing }}",
            "0[]xFalse",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
    for source in [
        "{{ messages < 1 }}",
        "{{ none | list }}",
        "{% for a in none %}{% endfor %}",
        "{{ missing in 'abc' }}",
        "{{ 'a' + missing }}",
        "{{ messages | map(attribute='role') | tojson }}",
        "{{ x.update({}) }}",
        "{{ '%d' % 'x' }}",
        "{{ '%s' % () }}",
        "{{ 'abc'.index('z') }}",
        "{{ 'abc'[::0] }}",
    ] {
        assert!(
            matches!(render(source), Err(TemplateError::Failed(_))),
            "{source}"
        );
    }
}

#[test]
fn errors_are_told_apart() {
    let raised = render(
        "{% macro m() %}{{ raise_exception('roles must alternate') }}{% endmacro %}{{ m() }}",
    );
    assert!(
        matches!(raised, Err(TemplateError::Raised(message)) if message == "roles must alternate")
    );
    assert!(matches!(render("{% if %}"), Err(TemplateError::Syntax(_))));
    assert!(matches!(
        render("{{ missing.field.deeper }}"),
        Err(TemplateError::Failed(_))
    ));
    assert!(matches!(
        render("{{ missing | tojson }}"),
        Err(TemplateError::Failed(_))
    ));
    assert!(matches!(
        render("{{ strftime_now('%Q') }}"),
        Err(TemplateError::Failed(_))
    ));
    let secret = render("{{ messages[0].content + 1 }}")
        .unwrap_err()
        .to_string();
    assert!(!secret.contains("Hi <b>"), "{secret}");
}

#[test]
fn endless_templates_are_stopped() {
    let nested = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}";
    let template = ChatTemplate::with_limits(nested, 100_000, usize::MAX).unwrap();
    assert!(matches!(
        template.render(&ChatTemplateInput::default()),
        Err(TemplateError::Limit)
    ));
    let recursive = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(matches!(render(recursive), Err(TemplateError::Failed(_))));
    let cyclic = "{% set ns = namespace() %}{% set ns.ns = ns %}{{ ns | tojson }}";
    assert!(matches!(render(cyclic), Err(TemplateError::Failed(_))));
}

#[test]
fn extra_variables_cannot_replace_the_chat() {
    let mut input = input(json!([{"role": "user", "content": "x"}]));
    input.extra.insert("messages".to_owned(), json!([]));
    input.extra.insert("bos_token".to_owned(), json!("B"));
    let template = ChatTemplate::from_source("{{ messages | length }}{{ bos_token }}").unwrap();
    assert_eq!(template.render(&input).unwrap(), "1B");
}

#[test]
fn numbers_are_written_as_python_does() {
    let template = ChatTemplate::from_source("{{ messages[0].content | tojson }}").unwrap();
    let text = "[18446744073709551615,-5,100000000000000000000,1e22,0.50,1E2,-1e-7]";
    let numbers: Value = serde_json::from_str(text).unwrap();
    let input = input(json!([{"role": "user", "content": {"n": numbers}}]));
    let expected =
        "{\"n\": [18446744073709551615, -5, 100000000000000000000, 1e+22, 0.5, 100.0, -1e-07]}";
    assert_eq!(template.render(&input).unwrap(), expected);
}

#[test]
fn arguments_of_tool_calls_become_objects() {
    let call = |arguments: Value| {
        let source =
            "{% for c in messages[0].tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}";
        let message = json!({"role": "assistant", "content": null, "tool_calls": [
            {"type": "function", "id": "a", "function": {"name": "f", "arguments": arguments}}]});
        ChatTemplate::from_source(source)
            .unwrap()
            .render(&input(json!([message])))
            .unwrap()
    };
    assert_eq!(
        call(json!("{\"z\":1,\"a\":[1.0]}")),
        r#"{"z": 1, "a": [1.0]}"#
    );
    assert_eq!(call(json!({"z": 1})), r#"{"z": 1}"#);
    assert_eq!(call(json!("")), "{}");
    assert_eq!(call(Value::Null), "{}");
    assert_eq!(call(json!("{\"cut")), r#""{\"cut""#);
}

#[test]
fn content_is_given_as_the_template_wants_it() {
    let string = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let both = "{% macro t(c) %}{% if c is string %}{{ c }}{% else %}{% for p in c %}[{{ p.text }}]{% endfor %}{% endif %}{% endmacro %}{{ t(messages[0].content) }}";
    let parts_only =
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}";
    let dumped = "{{ messages[0].content | tojson }}";
    let text_parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    for (source, format, from_parts, from_string) in [
        (string, ContentFormat::String, "a\nb", "a"),
        (both, ContentFormat::Parts, "[a][b]", "a"),
        (parts_only, ContentFormat::PartsOnly, "ab", "a"),
        (dumped, ContentFormat::String, "\"a\\nb\"", "\"a\""),
    ] {
        let template = ChatTemplate::from_source(source).unwrap();
        assert_eq!(template.content_format(), format, "{source}");
        let render = |content: &Value| {
            template
                .render(&input(json!([{"role": "user", "content": content}])))
                .unwrap()
        };
        assert_eq!(render(&text_parts), from_parts);
        assert_eq!(render(&json!("a")), from_string);
    }
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]);
    let error = ChatTemplate::from_source(string)
        .unwrap()
        .render(&input(image))
        .unwrap_err();
    assert!(matches!(error, TemplateError::UnsupportedContent(kind) if kind == "image_url"));
}

#[test]
fn each_role_gets_content_as_the_template_reads_it_there() {
    let source = "{% for m in messages %}{% if m.role == 'user' %}{% if m.content is string %}{{ m.content }}\
        {% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}\
        {% else %}{{ '<' + m.content + '>' }}{% endif %}{% endfor %}";
    let parts = |texts: [&str; 2]| {
        let part = |text: &str| json!({"type": "text", "text": text});
        Value::Array(texts.map(part).to_vec())
    };
    let template = ChatTemplate::from_source(source).unwrap();
    let messages = json!([
        {"role": "system", "content": parts(["a", "b"])},
        {"role": "user", "content": parts(["c", "d"])},
        {"role": "tool", "tool_call_id": "x", "content": parts(["e", "f"])},
    ]);
    let text = template.render(&input(messages)).unwrap();
    assert_eq!(text, "<a\nb>[c][d]<e\nf>");
}

#[test]
fn several_parts_are_kept_in_a_plainer_form() {
    let parts = json!([{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]);
    for contents in [[json!("a"), parts.clone()], [parts, json!("d")]] {
        let messages = contents.map(|content| json!({"role": "user", "content": content}));
        let plainer = input(Value::from(messages.to_vec())).plainer(Plainness::InTurns);
        let content = plainer.messages[0]["content"].as_array().unwrap();
        assert_eq!((plainer.messages.len(), content.len()), (1, 3));
        assert!(content.iter().all(|part| part["text"].is_string()));
    }
}

#[test]
fn ids_are_shortened_where_the_template_insists() {
    let refusal = "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') if m.tool_call_id|length != 9 }}";
    let source = format!(
        "{{% for m in messages %}}{{% if m.role == 'tool' %}}{refusal}<{{{{ m.tool_call_id }}}}>{{% endif %}}{{% for c in m.tool_calls or [] %}}[{{{{ c.id }}}}]{{% endfor %}}{{% endfor %}}"
    );
    let template = ChatTemplate::from_source(&source).unwrap();
    let call = |id: &str| {
        json!({"role": "assistant", "content": null, "tool_calls": [
        {"type": "function", "id": id, "function": {"name": "f", "arguments": "{}"}}]})
    };
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "x"});
    let render = |id: &str| {
        template
            .render(&input(json!([call(id), result(id)])))
            .unwrap()
    };
    assert_eq!(render("abc12DEF9"), "[abc12DEF9]<abc12DEF9>");
    let long = render("call_0123456789abcdef");
    assert_eq!(long.len(), 22);
    assert_eq!(long[1..10], long[12..21]);
    assert!(long[1..10].bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_ne!(render("abc-12DEF"), render("abc_12DEF"));
}

#[test]
fn calls_get_the_content_that_shows_them() {
    let call = json!([{"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "id": "a", "function": {"name": "f", "arguments": {}}}]}]);
    let body = "{% for c in m.tool_calls %}[{{ c.function.name }}]{% endfor %}";
    for condition in ["m.content is none", "m.tool_calls"] {
        let source = format!(
            "{{% for m in messages %}}{{% if {condition} %}}{body}{{% endif %}}{{% endfor %}}"
        );
        let template = ChatTemplate::from_source(&source).unwrap();
        assert_eq!(
            template.render(&input(call.clone())).unwrap(),
            "[f]",
            "{condition}"
        );
    }
}

#[test]
fn reasoning_goes_by_every_name() {
    let source = "{% for m in messages %}{{ m.thinking }}|{{ m.reasoning_content }} {% endfor %}";
    let template = ChatTemplate::from_source(source).unwrap();
    let messages = json!([{"role": "assistant", "content": "x", "reasoning": "a"},
        {"role": "assistant", "content": "x", "thinking": "b"},
        {"role": "assistant", "content": "x", "reasoning_content": "c", "tool_calls": []},
        {"role": "user", "content": "x"}]);
    assert_eq!(
        template.render(&input(messages.clone())).unwrap(),
        "a|a b|b c|c | "
    );
    let refusal =
        "{% if false %}{{ raise_exception('Cannot pass both content and thinking') }}{% endif %}";
    let template = ChatTemplate::from_source(&format!("{refusal}{source}")).unwrap();
    assert_eq!(template.render(&input(messages)).unwrap(), "a|a b|b |c | ");
}
