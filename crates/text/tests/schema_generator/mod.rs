//! Makes random JSON schemas, such as tools have, out of a seed.

use serde_json::{Map, Value, json};

const NAMES: [&str; 12] = [
    "city",
    "größe",
    "名前",
    "max results",
    "a\"b",
    "x-y",
    "path/to",
    "emoji🙂",
    "id",
    "ok",
    "\\",
    "tab\t",
];
const PATTERNS: [&str; 12] = [
    "^[a-z]{2,5}$",
    "^\\d{4}-\\d{2}$",
    "^(GET|POST) /[a-z]*$",
    "[0-9]+",
    "^ä+\\w?$",
    "^\"quoted\\\\\"$",
    "^(?=.*[A-Z])(?=.*\\d).{8,12}$",
    "^(?!.*foo)[a-z]{3,9}$",
    "^(?!\\s*$).{1,9}",
    "^(?!(admin|root)$)[a-z]+(?=-)-?[a-z]*$",
    "(^ab|(?=[x-z])\\w{2}$)",
    "^[a-z]+(?![0-9])[a-z0-9_]*$",
];
// Not `email`, whose names end at 64 characters for the validator alone, and not `time` and
// `date-time`, since a second 60 is one at midnight only, which no grammar knows.
const FORMATS: [&str; 3] = ["uuid", "ipv4", "x-unknown"];

/// A small generator whose numbers are the same everywhere (splitmix64).
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// The schema of an object.
pub(crate) fn schema(random: &mut Random) -> Value {
    let mut definitions = Map::new();
    if random.one_in(3) {
        // A tree: it refers to itself.
        let leaf = scalar(random);
        definitions.insert(
            "node".to_owned(),
            json!({"type": "object", "properties": {"value": leaf, "next": {
                       "anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                   "required": ["value"], "additionalProperties": false}),
        );
    }
    let mut root = object(random, 3, &definitions);
    if !definitions.is_empty() {
        root["$defs"] = Value::Object(definitions);
    }
    root
}

fn any(random: &mut Random, depth: usize, definitions: &Map<String, Value>) -> Value {
    if depth == 0 {
        return scalar(random);
    }
    match random.below(10) {
        0 | 1 => object(random, depth - 1, definitions),
        2 => array(random, depth - 1, definitions),
        3 => {
            let options: Vec<Value> = (0..2 + random.below(2))
                .map(|_| any(random, depth - 1, definitions))
                .collect();
            json!({"anyOf": options})
        }
        4 if !definitions.is_empty() => json!({"$ref": "#/$defs/node", "description": "a tree"}),
        _ => scalar(random),
    }
}

fn object(random: &mut Random, depth: usize, definitions: &Map<String, Value>) -> Value {
    if depth < 2 && random.one_in(8) {
        let names = [
            json!({"enum": ["a.b", "c/d", "ö|", "\"\\"]}),
            json!({"type": "string", "pattern": "^[a-z]{1,3}(?!x)$"}),
            json!({"minLength": 1, "maxLength": 4}),
            json!({"const": "(only)"}),
        ];
        return json!({"type": "object", "propertyNames": random.pick(&names).clone(),
            "additionalProperties": scalar(random)});
    }
    let mut properties = Map::new();
    let mut required = Vec::new();
    for _ in 0..random.below(5) {
        let name = *random.pick(&NAMES);
        let value = any(random, depth, definitions);
        if properties.insert(name.to_owned(), value).is_none() && random.one_in(2) {
            required.push(name);
        }
    }
    let mut object = json!({"type": "object", "properties": properties, "required": required});
    match random.below(4) {
        0 => object["additionalProperties"] = json!(false),
        1 => object["additionalProperties"] = json!(true),
        2 => object["additionalProperties"] = scalar(random),
        _ => {}
    }
    object
}

fn array(random: &mut Random, depth: usize, definitions: &Map<String, Value>) -> Value {
    let mut array = json!({"type": "array", "items": any(random, depth, definitions)});
    let least = random.below(3);
    if random.one_in(2) {
        array["minItems"] = json!(least);
    }
    if random.one_in(2) {
        array["maxItems"] = json!(least + random.below(4));
    }
    if random.one_in(5) {
        let items = [
            json!({"enum": ["a", 1, null, "a"]}),
            json!({"type": "boolean"}),
            json!({"type": "string", "enum": ["x", "ö", "z", 7]}),
        ];
        array["items"] = random.pick(&items).clone();
        array["uniqueItems"] = json!(true);
        // There are no more different ones.
        array["minItems"] = json!(least.min(2));
    } else if random.one_in(4) {
        array["prefixItems"] = json!([scalar(random), scalar(random)]);
    }
    array
}

fn scalar(random: &mut Random) -> Value {
    match random.below(12) {
        0 => json!({"type": "boolean"}),
        1 => json!({"type": ["string", "null"], "maxLength": 20}),
        2 => json!({"enum": ["a", "ä\"", 3, null, {"k": [1]}]}),
        3 => json!({"const": *random.pick(&NAMES)}),
        4 => {
            json!({"type": "integer", "minimum": random.below(50), "maximum": 50 + random.below(2000)})
        }
        5 => json!({"type": "number", "minimum": -2.5, "exclusiveMaximum": 1 + random.below(9)}),
        6 => {
            json!({"type": "integer", "minimum": -30, "maximum": 300, "multipleOf": 1 + random.below(7)})
        }
        7 => json!({"type": "string", "pattern": *random.pick(&PATTERNS)}),
        8 => json!({"type": "string", "format": *random.pick(&FORMATS)}),
        9 => {
            json!({"type": "string", "minLength": random.below(4), "maxLength": 4 + random.below(30)})
        }
        10 => json!({"type": "string", "description": "free text", "default": ""}),
        _ => json!({"type": "integer", "deprecated": true, "minimum": 0, "maximum": 9}),
    }
}
