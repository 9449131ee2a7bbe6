//! The same on a device.

use std::sync::Arc;

use backstop_card::layout::TiledMatrix;
use backstop_card::ops::embed::{Embed, FEEDBACK};
use backstop_card::{Device, DeviceBuffer, Stream};
use backstop_kernels::Element;

use super::EmbedCase;
use crate::PoisonedBuffer;
use crate::catalog::{Case, DeviceResult, DeviceRun, Tolerance};

pub(super) fn device<'a>(
    case: &'a EmbedCase,
    device: &'a Arc<dyn Device>,
) -> Option<DeviceResult<'a>> {
    (case.table.view().element() == Element::BF16).then(|| run(case, device))
}

/// Every second token comes from a slot.
fn run<'a>(case: &'a EmbedCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let view = case.table.view();
    let (vocabulary, columns, rows) = (view.rows(), view.columns(), case.tokens.len());
    let source: Vec<u8> = (0..vocabulary)
        .flat_map(|row| view.row_bytes(row).into_owned())
        .collect();
    let tiled = TiledMatrix::new(vocabulary, columns, Element::BF16).pack(&source);
    let ids = case.tokens.iter().enumerate().map(|(row, &token)| {
        if row % 2 == 0 {
            token
        } else {
            FEEDBACK | row as u32
        }
    });
    let table = DeviceBuffer::from_slice(device, &tiled)?;
    let tokens = DeviceBuffer::from_slice(device, &ids.collect::<Vec<_>>())?;
    let last_token = DeviceBuffer::from_slice(device, &case.tokens)?;
    let out = Arc::new(PoisonedBuffer::new(device, rows * columns * 4)?);
    let embed = Embed {
        table: table.pointer(),
        tokens: tokens.pointer(),
        last_token: last_token.pointer(),
        out: out.pointer(),
        rows,
        columns,
        vocabulary,
        slots: rows,
    };
    let inputs = [table, tokens, last_token];
    Ok(DeviceRun {
        launch: Box::new({
            let out = Arc::clone(&out);
            move || {
                let _owned = (&inputs, &out);
                // SAFETY: the buffers have these sizes and live as long as the closure.
                unsafe { embed.launch(device.as_ref(), Stream::Main) }
            }
        }),
        read: Box::new(move || out.read()),
        expected: Box::new(|| case.reference()),
        tolerance: Tolerance::EXACT,
    })
}
