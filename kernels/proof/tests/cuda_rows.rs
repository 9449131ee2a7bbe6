//! The kernels around the matrix products, on the host executor: sorting tokens by expert, rows
//! into panels, block tables. The catalog's cases test the operations themselves; here is what
//! those do not reach.
#![expect(unsafe_code, reason = "launches take pointers")]

use std::sync::Arc;

use backstop_card::batch::{TableUpdate, UpdateTables};
use backstop_card::group::{GroupMemory, Grouping};
use backstop_card::layout::{NONE, PanelLayout, TiledMatrix};
use backstop_card::ops::embed::{Embed, FEEDBACK};
use backstop_card::ops::norm::AddNorm;
use backstop_card::ops::router::Choose;
use backstop_card::pack::{Gather, Pack, PanelOutput, RowSource};
use backstop_card::{Device, DeviceBuffer, DevicePointer, Plain, Stream};
use backstop_kernels::random::{random_indices, random_values};
use backstop_kernels::{
    Element, F8_MAX, Norm, RouterRule, RouterScoring, narrow_bf16, round_f8, widen_bf16,
};
use backstop_proof::PoisonedBuffer;
use backstop_proof::host::HostDevice;

fn device() -> Arc<dyn Device> {
    HostDevice::for_tests().expect("the kernels compile for the processor")
}

fn upload<T: Plain>(device: &Arc<dyn Device>, values: &[T]) -> DeviceBuffer {
    DeviceBuffer::from_slice(device, values).expect("memory")
}

fn poisoned(device: &Arc<dyn Device>, bytes: usize) -> PoisonedBuffer {
    PoisonedBuffer::new(device, bytes).expect("memory")
}

fn bf16(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| narrow_bf16(value)).collect()
}

fn widen(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&bits| widen_bf16(bits)).collect()
}

fn rounded(values: &[f32]) -> Vec<f32> {
    widen(&bf16(values))
}

/// E4M3 numbers and scales of the rows.
fn quantised(values: &[f32], columns: usize) -> (Vec<f32>, Vec<f32>) {
    let scale = |row: &[f32]| {
        let largest = row.iter().fold(0f32, |largest, v| largest.max(v.abs()));
        if largest == 0.0 {
            1.0
        } else {
            largest / F8_MAX
        }
    };
    let scales: Vec<f32> = values.chunks(columns).map(scale).collect();
    let rows = values.chunks(columns).zip(&scales);
    let numbers = rows.flat_map(|(row, scale)| row.iter().map(move |v| round_f8(v / scale)));
    (numbers.collect(), scales)
}

/// What the sort must give: pairs of slots, tokens of pairs, tiles of (expert, first, count).
struct Sorted {
    pair_of_slot: Vec<u32>,
    token_of_pair: Vec<u32>,
    tiles: Vec<[u32; 4]>,
    end: u32,
}

impl Sorted {
    fn new(grouping: Grouping, experts: &[u32]) -> Self {
        let mut pair_of_slot = vec![NONE; experts.len()];
        let mut token_of_pair = Vec::new();
        let mut tiles = Vec::new();
        for expert in 0..grouping.experts as u32 {
            let first = token_of_pair.len();
            for slot in (0..experts.len()).filter(|&slot| experts[slot] == expert) {
                pair_of_slot[slot] = token_of_pair.len() as u32;
                token_of_pair.push((slot / grouping.top_k) as u32);
            }
            for tile in (first..token_of_pair.len()).step_by(grouping.tile_width) {
                let count = (token_of_pair.len() - tile).min(grouping.tile_width);
                tiles.push([expert, tile as u32, count as u32, 0]);
            }
            token_of_pair.resize(token_of_pair.len().next_multiple_of(8), NONE);
        }
        let end = token_of_pair.len() as u32;
        token_of_pair.resize(grouping.pair_capacity(), NONE);
        Self {
            pair_of_slot,
            token_of_pair,
            tiles,
            end,
        }
    }
}

fn check_sort(device: &Arc<dyn Device>, grouping: Grouping, experts: &[u32]) {
    let expected = Sorted::new(grouping, experts);
    let input = upload(device, experts);
    let pair_of_slot = poisoned(device, experts.len() * 4);
    let token_of_pair = poisoned(device, grouping.pair_capacity() * 4);
    let tiles = poisoned(device, grouping.tile_capacity() * 16);
    let counts = poisoned(device, 8);
    let scratch = poisoned(device, grouping.scratch_bytes());
    // Poison happens to be NONE.
    for (buffer, len) in [
        (&pair_of_slot, experts.len()),
        (&token_of_pair, grouping.pair_capacity()),
    ] {
        // SAFETY: the buffer is this long.
        unsafe { device.fill(Stream::Main, buffer.pointer(), 7, len * 4) }.expect("a fill");
    }
    let memory = GroupMemory {
        experts: input.pointer(),
        pair_of_slot: pair_of_slot.pointer(),
        token_of_pair: token_of_pair.pointer(),
        tiles: tiles.pointer(),
        counts: counts.pointer(),
        scratch: scratch.pointer(),
    };
    // SAFETY: the buffers have the sizes of the sort.
    unsafe { grouping.launch(&**device, Stream::Main, &memory) }.expect("a launch");
    let counts: Vec<u32> = counts.read().expect("counts");
    assert_eq!(
        counts,
        [expected.tiles.len() as u32, expected.end],
        "{grouping:?}"
    );
    let pairs: Vec<u32> = pair_of_slot.read().expect("pairs");
    assert!(pairs == expected.pair_of_slot, "{grouping:?}");
    let tokens: Vec<u32> = token_of_pair.read().expect("tokens");
    assert!(tokens == expected.token_of_pair, "{grouping:?}");
    let tiles: Vec<u32> = tiles.read().expect("tiles");
    let tiles = &tiles[..expected.tiles.len() * 4];
    assert!(tiles == expected.tiles.concat(), "{grouping:?}");
    scratch.read::<u32>().expect("the scratch's end");
}

#[test]
fn slots_are_sorted_by_expert_and_then_by_slot() {
    let device = device();
    let shapes = [
        [0, 2, 4, 8],
        [1, 1, 1, 8],
        [1, 8, 128, 8],
        [3, 2, 1024, 128],
        [67, 8, 128, 16],
        [512, 8, 128, 64],
        [513, 8, 60, 32],
        [900, 9, 1024, 8],
        [8192, 8, 128, 128],
    ];
    for [rows, top_k, experts, tile_width] in shapes {
        let grouping = Grouping {
            rows,
            top_k,
            experts,
            tile_width,
        };
        let mut chosen = random_indices(rows as u64, rows * top_k, experts);
        check_sort(&device, grouping, &chosen);
        // All of one expert, and rows that only fill up the batch.
        if rows > 100 {
            chosen[..rows * top_k / 2].fill(experts as u32 / 2);
        }
        chosen[rows * top_k / 3 * 2..].fill(NONE);
        check_sort(&device, grouping, &chosen);
    }
}

#[test]
fn capacities_are_enough_for_the_most_scattered_choice() {
    let device = device();
    for [rows, top_k, experts, tile_width] in [[2, 4, 8, 8], [1025, 1, 512, 16], [129, 8, 1024, 8]]
    {
        let grouping = Grouping {
            rows,
            top_k,
            experts,
            tile_width,
        };
        let chosen: Vec<u32> = (0..rows * top_k)
            .map(|slot| (slot % experts) as u32)
            .collect();
        check_sort(&device, grouping, &chosen);
    }
}

#[test]
fn gathered_rows_are_those_of_the_tokens() {
    let device = device();
    let (rows, columns) = (130, 5 * 128 + 16);
    let values = random_values(1, rows * columns, 1.0);
    let mut tokens = random_indices(2, 256 + 64, rows);
    tokens[3] = NONE;
    tokens[40..48].fill(NONE);
    let end = 96;
    for element in [Element::BF16, Element::F8E4M3] {
        let layout = PanelLayout::for_rows(rows, columns, element);
        let pairs = PanelLayout::for_rows(tokens.len(), columns, element);
        tokens.resize(pairs.capacity, NONE);
        let scales: Vec<f32> = random_values(3, layout.capacity, 1.0);
        let source = upload(&device, &layout.pack(&values));
        let source_scales = upload(&device, &scales);
        let token_of_pair = upload(&device, &tokens);
        let counts = upload(&device, &[0, end as u32]);
        let out = poisoned(&device, pairs.bytes());
        let out_scales = poisoned(&device, pairs.capacity * 4);
        let gather = Gather {
            source: source.pointer(),
            source_scales: source_scales.pointer(),
            source_capacity: layout.capacity,
            token_of_pair: token_of_pair.pointer(),
            counts: counts.pointer(),
            out: out.pointer(),
            scales: out_scales.pointer(),
            pairs,
        };
        // SAFETY: the buffers have the sizes of the layouts.
        unsafe { gather.launch(&*device, Stream::Main) }.expect("a launch");
        let packed = layout.unpack(&layout.pack(&values), rows);
        let out = pairs.unpack(&out.read().expect("rows"), tokens.len());
        let out_scales: Vec<f32> = out_scales.read().expect("scales");
        for (pair, &token) in tokens.iter().enumerate().take(end + 128) {
            let row = &out[pair * columns..][..columns];
            if token == NONE {
                assert!(row.iter().all(|&value| value == 0.0) && out_scales[pair] == 0.0);
            } else {
                assert_eq!(row, &packed[token as usize * columns..][..columns]);
                assert_eq!(out_scales[pair], scales[token as usize]);
            }
        }
        assert!(out_scales[end + 128..].iter().all(|scale| scale.is_nan()));
    }
}

/// Panels in both formats, and what became of them.
struct BothPanels {
    bf16: (PanelLayout, PoisonedBuffer),
    e4m3: (PanelLayout, PoisonedBuffer),
    scales: PoisonedBuffer,
}

impl BothPanels {
    fn new(device: &Arc<dyn Device>, rows: usize, columns: usize) -> Self {
        let memory = |element| {
            let layout = PanelLayout::for_rows(rows, columns, element);
            (layout, poisoned(device, layout.bytes()))
        };
        let bf16 = memory(Element::BF16);
        Self {
            scales: poisoned(device, bf16.0.capacity * 4),
            e4m3: memory(Element::F8E4M3),
            bf16,
        }
    }

    fn output(&self) -> PanelOutput {
        PanelOutput {
            bf16: self.bf16.1.pointer(),
            e4m3: self.e4m3.1.pointer(),
            scales: self.scales.pointer(),
            capacity: self.bf16.0.capacity,
        }
    }

    /// Checks BF16 numbers, E4M3 numbers, scales and the zeroes in the last panels, to the last
    /// bit, of the rows for which `wanted` holds; other rows must be poisoned.
    fn check(&self, values: &[f32], columns: usize, wanted: impl Fn(usize) -> bool) {
        let (numbers, scales) = quantised(values, columns);
        let actual_scales: Vec<f32> = self.scales.read().expect("scales");
        let formats = [(&self.bf16, &rounded(values)), (&self.e4m3, &numbers)];
        for ((layout, buffer), expected) in formats {
            let padded = PanelLayout {
                columns: layout.panels() * 128 / layout.element.bytes(),
                ..*layout
            };
            let rows = values.len() / columns;
            let bytes: Vec<u8> = buffer.read().expect("panels");
            let actual = padded.unpack(&bytes, rows);
            for row in 0..rows {
                let actual = &actual[row * padded.columns..][..padded.columns];
                if !wanted(row) {
                    assert!(actual.iter().all(|value| value.is_nan()), "row {row}");
                    continue;
                }
                assert_eq!(&actual[..columns], &expected[row * columns..][..columns]);
                assert!(actual[columns..].iter().all(|&value| value == 0.0));
                assert_eq!(actual_scales[row], scales[row]);
            }
        }
    }
}

/// Rows in all forms that kernels leave them in: memory, source, values.
fn row_sources(
    device: &Arc<dyn Device>,
    rows: usize,
    columns: usize,
) -> Vec<(Vec<DeviceBuffer>, RowSource, Vec<f32>)> {
    let (part_rows, top_k, pairs) = (rows + 3, 11, 50);
    let parts: Vec<Vec<f32>> = (0..3)
        .map(|part| random_values(part, part_rows * columns, 1.0))
        .collect();
    let sums: Vec<f32> = (0..rows * columns)
        .map(|i| parts[0][i] + parts[1][i] + parts[2][i])
        .collect();
    let results = bf16(&random_values(7, pairs * columns, 2.0));
    let mut pair_of_slot = random_indices(8, rows * top_k, pairs);
    pair_of_slot[2] = NONE;
    let weights = random_values(9, rows * top_k, 0.2);
    let routed = |index: usize| {
        let (row, column) = (index / columns, index % columns);
        (row * top_k..(row + 1) * top_k)
            .filter(|&slot| pair_of_slot[slot] != NONE)
            .fold(0f32, |sum, slot| {
                let place = pair_of_slot[slot] as usize * columns + column;
                weights[slot].mul_add(widen_bf16(results[place]), sum)
            })
    };
    let combined: Vec<f32> = (0..rows * columns).map(routed).collect();
    let plain = bf16(&sums);
    let memory = [
        vec![upload(device, &parts.concat())],
        vec![upload(device, &plain)],
        vec![
            upload(device, &results),
            upload(device, &pair_of_slot),
            upload(device, &weights),
        ],
        vec![upload(device, &parts.concat())],
    ];
    let from_parts = |values, rounded| RowSource::Parts {
        values,
        parts: 3,
        part_rows,
        rounded,
    };
    let sources = [
        from_parts(memory[0][0].pointer(), false),
        RowSource::Bf16 {
            values: memory[1][0].pointer(),
        },
        RowSource::Routed {
            values: memory[2][0].pointer(),
            pair_of_slot: memory[2][1].pointer(),
            weights: memory[2][2].pointer(),
            top_k,
        },
        from_parts(memory[3][0].pointer(), true),
    ];
    let values = [sums.clone(), widen(&plain), combined, rounded(&sums)];
    let with_sources = memory.into_iter().zip(sources).zip(values);
    with_sources
        .map(|((memory, source), values)| (memory, source, values))
        .collect()
}

#[test]
fn rows_of_every_form_become_panels() {
    let device = device();
    for (rows, columns) in [(5, 768), (3, 7), (130, 72), (2, 2049)] {
        for (_memory, source, mut values) in row_sources(&device, rows, columns) {
            let mut token_of_row = vec![0; rows];
            token_of_row[1] = NONE;
            let token_of_row = upload(&device, &token_of_row);
            let out = BothPanels::new(&device, rows, columns);
            let mut pack = Pack {
                source,
                token_of_row: token_of_row.pointer(),
                out: out.output(),
                rows,
                columns,
            };
            // SAFETY: the buffers have the sizes of the layouts.
            unsafe { pack.launch(&*device, Stream::Main) }.expect("a launch");
            out.check(&values, columns, |row| row != 1);
            pack.token_of_row = DevicePointer::NULL;
            pack.source = RowSource::None;
            // SAFETY: as above.
            unsafe { pack.launch(&*device, Stream::Main) }.expect("a launch");
            values.fill(0.0);
            out.check(&values, columns, |_| true);
        }
    }
}

#[test]
fn norms_of_rows_of_every_form_and_length_are_quantised_from_f32() {
    let device = device();
    for (rows, columns) in [
        (3, 8),
        (2, 2048),
        (2, 2056),
        (1, 4099),
        (2, 8192),
        (1, 16_384),
    ] {
        for (_memory, source, values) in row_sources(&device, rows, columns) {
            let hidden = random_values(3, rows * columns, 1.0);
            let weight = upload(&device, &vec![1.0f32; columns]);
            let residual = upload(&device, &hidden);
            let out = BothPanels::new(&device, rows, columns);
            let norm = AddNorm {
                residual: residual.pointer(),
                addends: [RowSource::None, source],
                weight: weight.pointer(),
                norm: Norm::Rms { epsilon: 1e-5 },
                out: out.output(),
                rows,
                columns,
            };
            // SAFETY: the buffers have the sizes of the layouts.
            unsafe { norm.launch(&*device, Stream::Main) }.expect("a launch");
            let sums: Vec<f32> = hidden.iter().zip(&values).map(|(a, b)| a + b).collect();
            let actual: Vec<f32> = residual.read().expect("the residual stream");
            assert_eq!(actual, sums);
            // A norm with equal weights only scales: E4M3 numbers are those of the sums, but for
            // what lies within a rounding error of a boundary.
            let (expected, _) = quantised(&sums, columns);
            let (layout, panels) = &out.e4m3;
            let actual = layout.unpack(&panels.read().expect("panels"), rows);
            let differing = actual.iter().zip(&expected).filter(|(a, b)| a != b).count();
            assert!(
                differing * 1000 <= actual.len(),
                "{differing} of {}",
                actual.len()
            );
            let (layout, panels) = &out.bf16;
            let normed = layout.unpack(&panels.read().expect("panels"), rows);
            let scales: Vec<f32> = out.scales.read().expect("scales");
            for (index, (normed, number)) in normed.iter().zip(&actual).enumerate() {
                let scale = scales[index / columns];
                // Half a step of E4M3, and of BF16.
                let allowed = normed.abs() * (1.0 / 16.0 + 1.0 / 256.0) + scale / 1024.0;
                assert!(
                    (normed - number * scale).abs() <= allowed,
                    "{normed}, {number}"
                );
            }
        }
    }
}

#[test]
fn routers_follow_the_rule_for_ties_and_for_what_is_no_number() {
    let device = device();
    let experts = 1000;
    let (rows, top_k) = (3, 32);
    let mut logits = random_values(1, rows * experts, 1.0);
    logits[5] = f32::NAN;
    logits[experts..2 * experts].fill(-0.0);
    logits[experts + 7] = 0.0;
    logits[experts + 9] = f32::INFINITY;
    logits[experts + 3] = f32::NEG_INFINITY;
    let memory = upload(&device, &logits);
    let slots = upload(&device, &[0, 1, NONE]);
    let chosen = poisoned(&device, rows * top_k * 4);
    let weights = poisoned(&device, rows * top_k * 4);
    let choose = Choose {
        logits: RowSource::f32(memory.pointer()),
        slots: slots.pointer(),
        experts: chosen.pointer(),
        weights: weights.pointer(),
        rows,
        num_experts: experts,
        rule: RouterRule {
            top_k: top_k as u32,
            scoring: RouterScoring::Sigmoid,
            renormalise: false,
            factor: 1.0,
            groups: None,
        },
    };
    // SAFETY: the buffers have these sizes.
    unsafe { choose.launch(&*device, Stream::Main) }.expect("a launch");
    let chosen: Vec<u32> = chosen.read().expect("experts");
    let weights: Vec<f32> = weights.read().expect("weights");
    let mut best: Vec<u32> = (0..experts as u32).filter(|&expert| expert != 5).collect();
    best.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    assert_eq!(chosen[..top_k], best[..top_k]);
    let of_zeroes = (0..experts as u32).filter(|expert| ![3, 9].contains(expert));
    let expected: Vec<u32> = [9].into_iter().chain(of_zeroes).take(top_k).collect();
    assert_eq!(chosen[top_k..2 * top_k], expected);
    assert_eq!(weights[top_k..top_k + 3], [1.0, 0.5, 0.5]);
    assert!(chosen[2 * top_k..].iter().all(|&expert| expert == NONE));
    assert!(weights[2 * top_k..].iter().all(|&weight| weight == 0.0));
}

#[test]
fn what_is_in_no_range_is_token_zero() {
    let device = device();
    let (vocabulary, columns) = (70, 24);
    let values = random_values(1, vocabulary * columns, 1.0);
    let bytes: Vec<u8> = bf16(&values)
        .iter()
        .flat_map(|bits| bits.to_le_bytes())
        .collect();
    let tiled = TiledMatrix::new(vocabulary, columns, Element::BF16).pack(&bytes);
    let table = upload(&device, &tiled);
    let ids = [69, 70, NONE, FEEDBACK | 1, FEEDBACK | 2, FEEDBACK, 1 << 30];
    let tokens = upload(&device, &ids);
    let last_token = upload(&device, &[900, 33]);
    let out = poisoned(&device, ids.len() * columns * 4);
    let embed = Embed {
        table: table.pointer(),
        tokens: tokens.pointer(),
        last_token: last_token.pointer(),
        out: out.pointer(),
        rows: ids.len(),
        columns,
        vocabulary,
        slots: 2,
    };
    // SAFETY: the buffers have these sizes.
    unsafe { embed.launch(&*device, Stream::Main) }.expect("a launch");
    let out: Vec<f32> = out.read().expect("rows");
    let table = rounded(&values);
    for (row, token) in [69, 0, 0, 33, 0, 0, 0].into_iter().enumerate() {
        assert_eq!(
            out[row * columns..][..columns],
            table[token * columns..][..columns]
        );
    }
}

#[test]
fn tables_take_their_updates_and_nothing_else() {
    let device = device();
    let (slots, lengths) = (5, [40usize, 9]);
    let mut expected = lengths.map(|length| vec![7u32; slots * length]);
    let tables = expected.each_ref().map(|table| upload(&device, table));
    let blocks: Vec<u32> = (1000..1200).collect();
    let update = |table, slot, first, count, offset| TableUpdate {
        table,
        slot,
        first,
        count,
        offset,
    };
    let mut updates = vec![
        update(0, 4, 0, 40, 100),
        update(1, 2, 8, 1, 0),
        update(0, 1, 3, 0, 9),
    ];
    for update in &updates {
        let length = lengths[update.table as usize];
        for i in 0..update.count as usize {
            expected[update.table as usize]
                [update.slot as usize * length + update.first as usize + i] =
                blocks[update.offset as usize + i];
        }
    }
    // What does not fit, and what is behind the number of updates.
    updates.extend([
        update(2, 0, 0, 1, 0),
        update(1, 5, 0, 1, 0),
        update(1, 4, 9, 1, 0),
    ]);
    let num_updates = updates.len() as u32;
    updates.push(update(0, 0, 0, 1, 0));
    let updates = upload(&device, &updates);
    let num_updates = upload(&device, &[num_updates]);
    let blocks = upload(&device, &blocks);
    let launch = UpdateTables {
        tables: [0, 1]
            .map(|i| (tables[i].pointer(), lengths[i] as u32))
            .to_vec(),
        slots: slots as u32,
        updates: updates.pointer(),
        num_updates: num_updates.pointer(),
        blocks: blocks.pointer(),
    };
    // SAFETY: the buffers have these sizes.
    unsafe { launch.launch(&*device, Stream::Main) }.expect("a launch");
    for (table, expected) in tables.iter().zip(&expected) {
        assert_eq!(&table.read::<u32>().expect("a table"), expected);
    }
}
