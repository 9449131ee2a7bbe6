//! Whether the schema of an answer's text is binding or a hint. OpenAI's fields say so with
//! `strict`, which is off where it is not set; all others ask for a schema to be enforced.

use serde_json::Value;

use crate::fields::Fields;

/// Of a chat: `response_format`.
pub(crate) fn of_chat(body: &Fields<'_>) -> bool {
    let format = body.get("response_format");
    format.is_none_or(|format| is_binding(format, &format["json_schema"]))
}

/// Of a response: `text.format`, or else as in a chat.
pub(crate) fn of_response(body: &Fields<'_>) -> bool {
    let text = body.get("text").map(|text| &text["format"]);
    text.map_or_else(|| of_chat(body), |format| is_binding(format, format))
}

/// `holder` is the object with the schema.
fn is_binding(format: &Value, holder: &Value) -> bool {
    // Beside `json_object` a schema may stand as well, without a word on how it is meant.
    let may_be_hint = ["json_schema", "json_object"].map(Value::from);
    !may_be_hint.contains(&format["type"]) || holder["strict"] == true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{of_chat, of_response};
    use crate::fields::Fields;

    #[test]
    fn a_schema_is_a_hint_unless_it_is_strict() {
        let schema = |strict| json!({"type": "json_schema", "json_schema": {"strict": strict}});
        let text = |strict| json!({"format": {"type": "json_schema", "strict": strict}});
        let cases = [
            (json!({}), true, true),
            (json!({"guided_json": {}}), true, true),
            (
                json!({"response_format": {"type": "json_object"}}),
                false,
                false,
            ),
            (json!({"response_format": schema(json!(true))}), true, true),
            (
                json!({"response_format": schema(json!(false))}),
                false,
                false,
            ),
            (
                json!({"response_format": schema(json!(null))}),
                false,
                false,
            ),
            (json!({"text": text(json!(true))}), true, true),
            (json!({"text": text(json!(false))}), true, false),
        ];
        for (body, chat, response) in cases {
            let fields = Fields::of_body(&body).unwrap();
            assert_eq!(of_chat(&fields), chat, "{body}");
            assert_eq!(of_response(&fields), response, "{body}");
        }
    }
}
