//! Weights in blocks against the numbers that llama.cpp's Python package reads from them
//! (`scripts/goldens/gguf_blocks.py`).

use std::path::Path;

use backstop_arch::gguf_families;
use backstop_kernels::{BlockFormat, WeightFormat};
use backstop_weights::Checkpoint;

#[test]
fn every_block_format_is_widened_to_the_reference_numbers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/gguf/blocks.gguf");
    let checkpoint = Checkpoint::open(&path, &gguf_families()).expect("the golden file");
    for &format in BlockFormat::IN_GGUF {
        let name = format.facts().name;
        let tensor = checkpoint.tensor(name).expect("a tensor");
        assert_eq!(tensor.element_type.name(), name);
        assert_eq!(
            tensor.element_type.unit(),
            Some((format.numbers(), format.bytes()))
        );
        let stored = checkpoint.read(name).expect("blocks");
        let expected = checkpoint
            .read(&format!("{name}.expected"))
            .expect("numbers");
        let expected = expected.as_chunks::<4>().0.iter();
        let expected: Vec<f32> = expected.map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let mut numbers = vec![f32::NAN; expected.len()];
        WeightFormat::from(format).widen(&stored, &mut numbers);
        assert_eq!(numbers, expected, "{name}");
    }
}
