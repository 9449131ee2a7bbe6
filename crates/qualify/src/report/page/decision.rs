//! The decision matrix, and what tokens cost here and elsewhere.

use backstop_pages::{Markup, number, table};

use super::super::cost::{Comparison, Cost};
use super::super::model::Report;
use super::paragraph;

pub(super) fn of(report: &Report) -> Markup {
    let rows = report.decision.iter().map(|criterion| {
        let finding = criterion.finding.as_deref();
        let finding = match finding {
            Some(finding) => Markup::from(finding),
            None => Markup::raw("<span class=\"faint\">not known</span>"),
        };
        vec![
            criterion.name.into(),
            finding,
            criterion.basis.as_str().into(),
        ]
    });
    let matrix = table(&["criterion", "finding", "who says so"], rows);
    let matrix = Markup::raw(format!("<div class=\"stacked\">{matrix}</div>"));
    let cost = match &report.cost {
        Some(cost) => prices(cost),
        None => paragraph(
            "Tokens have no price here: that takes a benchmark (--bench) and what the machine costs in an hour (--hourly-cost).",
        ),
    };
    [matrix, cost].into_iter().collect()
}

fn prices(cost: &Cost) -> Markup {
    let currency = &cost.currency;
    let text = format!(
        "The machine costs {} {currency} an hour. With {}, it reads {} and writes {} tokens in that hour: {} {currency} for a million tokens of either \
         kind, or {} {currency} for a million tokens of answers, if these bear all the cost. A machine that idles costs the same.",
        cost.hourly,
        cost.at_load,
        number(cost.input_tokens_an_hour),
        number(cost.output_tokens_an_hour),
        number(cost.per_million_tokens),
        number(cost.per_million_output_tokens)
    );
    let heads = [
        "provider",
        "model",
        "read, per million",
        "written, per million",
        "the same hour's tokens",
        "against this machine",
        "as of",
    ];
    let rows = cost.others.iter().map(|other| row(other, currency));
    let sources: String = cost
        .others
        .iter()
        .map(|other| format!("{}: {}", other.price.model, other.price.source))
        .collect::<Vec<_>>()
        .join("; ");
    let note = format!(
        "List prices are copies and change; a contract may say otherwise. They buy other models, whose answers are not the same. {sources}."
    );
    [
        Markup::raw("<h3>What tokens cost</h3>"),
        paragraph(&text),
        table(&heads, rows),
        Markup::raw(format!("<p class=\"faint\">{}</p>", Markup::from(note))),
    ]
    .into_iter()
    .collect()
}

fn row(other: &Comparison, currency: &str) -> Vec<Markup> {
    let price = &other.price;
    let text = |value: f64, currency: &str| format!("{value:.2} {currency}");
    vec![
        price.provider.as_str().into(),
        price.model.as_str().into(),
        text(price.input, &price.currency).into(),
        text(price.output, &price.currency).into(),
        other
            .same_tokens
            .map_or("other currency".to_owned(), |cost| text(cost, currency))
            .into(),
        other
            .ratio
            .map_or("–".to_owned(), |ratio| format!("{} times", number(ratio)))
            .into(),
        price.as_of.as_str().into(),
    ]
}
