//! The naive product, and the quantisation of activations that goes before products with codes.

use std::borrow::Cow;

use backstop_kernels::{Arithmetic, CODE_MAX, GROUP_COLUMNS, Product};

/// Naive product.
pub fn reference(args: &Product<'_>, out: &mut [f32]) {
    args.check(out.len());
    for row in 0..args.weight.rows() {
        let mut weights = vec![0.0; args.weight.columns()];
        args.weight.widen_row(row, &mut weights);
        let scale = args.factor * args.weight_scales.map_or(1.0, |scales| scales[row]);
        let quantised = args.weight.arithmetic(row) == Some(Arithmetic::Integers);
        for token in 0..args.input.count() {
            let mut input = Cow::Borrowed(args.input.row(token));
            if quantised {
                input = quantised_reference(&input).into();
            }
            let products = input.iter().zip(&weights);
            let sum: f32 = products.map(|(x, weight)| x * weight).sum();
            out[token * args.weight.rows() + row] = sum * scale * args.input.scale(token);
        }
    }
}

/// What a row's numbers are after they have been quantised.
fn quantised_reference(row: &[f32]) -> Vec<f32> {
    let groups = row.chunks(GROUP_COLUMNS);
    let values = groups.flat_map(|group| {
        let largest = group.iter().fold(0f32, |most, value| most.max(value.abs()));
        let step = largest / CODE_MAX;
        let inverse = if largest > 0.0 {
            CODE_MAX / largest
        } else {
            0.0
        };
        let codes = group
            .iter()
            .map(move |value| (value * inverse).round_ties_even());
        codes.map(move |code| code * step)
    });
    values.collect()
}
