//! The shapes of the cases of attention.

use backstop_kernels::Element;
use backstop_types::AttentionSpan;

/// Heads, formats and sequences of a case.
#[derive(Clone, Debug)]
pub(crate) struct PagedShape {
    /// Query heads, key-value heads, elements of a head.
    pub(crate) heads: [u32; 3],
    /// Heads have sinks.
    pub(crate) sinks: bool,
    pub(crate) block_size: usize,
    pub(crate) element: Element,
    pub(crate) span: AttentionSpan,
    /// First position and number of rows of each sequence.
    pub(crate) sequences: Vec<(usize, usize)>,
}

impl PagedShape {
    pub(crate) fn label(&self) -> String {
        let Self {
            heads: [heads, kv_heads, head_dim],
            sinks,
            block_size,
            element,
            span,
            sequences,
        } = self;
        let sequences = match sequences.as_slice() {
            [first, rest @ ..] if rest.len() > 4 && rest.iter().all(|other| other == first) => {
                format!("{} of {first:?}", sequences.len())
            }
            _ => format!("{sequences:?}"),
        };
        let with_sinks = if *sinks { " with sinks" } else { "" };
        format!(
            "{heads}/{kv_heads} heads of {head_dim}{with_sinks}, {element:?}, blocks of {block_size}, \
             {span:?}, {sequences}"
        )
    }
}

/// The shapes that tests run.
pub(crate) fn shapes() -> Vec<PagedShape> {
    let mixed = vec![(0, 5), (70, 1), (3, 17), (129, 2), (0, 1)];
    let mut shapes = Vec::new();
    for element in [Element::F32, Element::BF16, Element::F8E4M3] {
        for span in [
            AttentionSpan::Full,
            AttentionSpan::Sliding { visible_keys: 9 },
        ] {
            let ragged = [
                ([1, 1, 2], 1),
                ([3, 1, 6], 3),
                ([6, 2, 18], 16),
                ([5, 5, 64], 8),
            ];
            for (heads, block_size) in ragged {
                let sequences = mixed.clone();
                shapes.push(PagedShape {
                    heads,
                    sinks: false,
                    block_size,
                    element,
                    span,
                    sequences,
                });
            }
        }
        let real = [
            (AttentionSpan::Full, vec![(0, 40), (300, 1), (63, 2)]),
            (
                AttentionSpan::Sliding { visible_keys: 65 },
                vec![(500, 20), (0, 3), (130, 1)],
            ),
        ];
        for (span, sequences) in real {
            shapes.push(PagedShape {
                heads: [32, 4, 128],
                sinks: false,
                block_size: 16,
                element,
                span,
                sequences,
            });
        }
    }
    shapes.extend(device_shapes());
    // Several partitions.
    let heads = [8, 1, 64];
    for (span, sequences) in [
        (AttentionSpan::Full, vec![(2200, 1), (1020, 9), (1023, 1)]),
        (
            AttentionSpan::Sliding { visible_keys: 1500 },
            vec![(4000, 3)],
        ),
    ] {
        for sinks in [false, true] {
            shapes.push(PagedShape {
                heads,
                sinks,
                block_size: 32,
                element: Element::BF16,
                span,
                sequences: sequences.clone(),
            });
        }
    }
    // gpt-oss.
    for (span, element) in [
        (AttentionSpan::Full, Element::F32),
        (AttentionSpan::Sliding { visible_keys: 128 }, Element::BF16),
        (AttentionSpan::Full, Element::F8E4M3),
    ] {
        shapes.push(PagedShape {
            heads: [64, 8, 64],
            sinks: true,
            block_size: 16,
            element,
            span,
            sequences: vec![(0, 3), (300, 2), (130, 1)],
        });
    }
    shapes
}

/// Shapes that the device supports as well: groups of one head to more than its small tasks hold,
/// edges of its tiles and partitions, and the end of the last panel within a row.
fn device_shapes() -> Vec<PagedShape> {
    let sliding = |visible_keys| AttentionSpan::Sliding { visible_keys };
    let full = AttentionSpan::Full;
    let (bf16, e4m3) = (Element::BF16, Element::F8E4M3);
    let shape = |heads, block_size, element, span, sequences: &[(usize, usize)]| PagedShape {
        heads,
        sinks: false,
        block_size,
        element,
        span,
        sequences: sequences.to_vec(),
    };
    vec![
        shape([5, 5, 32], 16, bf16, full, &[(0, 130), (510, 5), (63, 1)]),
        shape([4, 2, 64], 64, e4m3, full, &[(0, 200), (510, 5), (1535, 1)]),
        shape([6, 2, 64], 48, bf16, sliding(1000), &[(1500, 50), (30, 1)]),
        shape(
            [8, 1, 128],
            16,
            bf16,
            full,
            &[(2800, 20), (0, 33), (511, 2)],
        ),
        shape(
            [8, 1, 128],
            64,
            e4m3,
            sliding(600),
            &[(1100, 40), (2047, 1), (599, 3)],
        ),
        shape([16, 2, 32], 32, bf16, sliding(64), &[(0, 200), (1000, 1)]),
        shape(
            [16, 1, 128],
            16,
            e4m3,
            full,
            &[(600, 9), (512, 1), (513, 1)],
        ),
        shape([32, 1, 64], 16, bf16, full, &[(700, 1), (1, 6)]),
    ]
}

/// Shapes whose rows select positions: few, more than a partition, and all that they see. The last
/// has GLM-5's heads.
pub(crate) fn selecting_shapes() -> impl Iterator<Item = PagedShape> {
    let elements = [Element::F32, Element::BF16, Element::F8E4M3];
    elements.into_iter().flat_map(|element| {
        let mixed = vec![(0, 5), (70, 1), (3, 17), (129, 2), (0, 1)];
        let shapes = [
            ([3, 1, 6], 3, mixed),
            ([6, 2, 18], 16, vec![(0, 40), (300, 1), (63, 2)]),
            ([8, 1, 64], 32, vec![(2200, 1), (1020, 9), (1023, 1)]),
            ([64, 1, 576], 16, vec![(30, 3), (100, 1)]),
        ];
        shapes.map(|(heads, block_size, sequences)| PagedShape {
            heads,
            sinks: false,
            block_size,
            element,
            span: AttentionSpan::Full,
            sequences,
        })
    })
}

/// Attention of North Mini Code: decoding, a chunk of a long prompt, and a whole one.
pub(crate) fn large_shapes() -> Vec<PagedShape> {
    let full = AttentionSpan::Full;
    let sliding = AttentionSpan::Sliding { visible_keys: 4097 };
    let (bf16, fp8) = (Element::BF16, Element::F8E4M3);
    let shapes = [
        (full, bf16, (1023, 1), 1),
        (full, bf16, (1023, 1), 64),
        (full, bf16, (1023, 1), 256),
        (full, bf16, (8191, 1), 1),
        (full, bf16, (8191, 1), 64),
        (full, fp8, (8191, 1), 64),
        (sliding, bf16, (8191, 1), 1),
        (sliding, bf16, (8191, 1), 64),
        (full, bf16, (2048, 512), 1),
        (full, bf16, (0, 8192), 1),
        (sliding, bf16, (0, 8192), 1),
    ];
    let shape = |(span, element, sequence, count)| PagedShape {
        heads: [32, 4, 128],
        sinks: false,
        block_size: 16,
        element,
        span,
        sequences: vec![sequence; count],
    };
    shapes.into_iter().map(shape).collect()
}
