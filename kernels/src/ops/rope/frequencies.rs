//! Inverse frequencies of rotary position embedding, with what stretches them. Formulas and order
//! of operations are those of `modeling_rope_utils.py` of Hugging Face transformers 5.23, in f32.

use std::f32::consts::TAU;

use crate::backend::{Rope, RopeScaling};

impl Rope {
    /// What positions are multiplied with to get the angles, `[dimensions / 2]`.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        assert!(
            self.dimensions > 0 && self.dimensions.is_multiple_of(2),
            "rotated dimensions are even"
        );
        let dimensions = self.dimensions as f32;
        let stretches = (0..self.dimensions / 2).map(|index| {
            let frequency = 1.0 / self.theta.powf((2 * index) as f32 / dimensions);
            self.stretched(index, frequency)
        });
        stretches.collect()
    }

    /// Factor on cosines and sines.
    pub fn magnitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { magnitude, .. } => magnitude,
            _ => 1.0,
        }
    }

    fn stretched(&self, index: u32, frequency: f32) -> f32 {
        match self.scaling {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor,
                high_frequency_factor,
                original_positions,
            } => {
                let wavelength = TAU / frequency;
                if wavelength > original_positions / low_frequency_factor {
                    frequency / factor
                } else if wavelength < original_positions / high_frequency_factor {
                    frequency
                } else {
                    let smooth = (original_positions / wavelength - low_frequency_factor)
                        / (high_frequency_factor - low_frequency_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
            RopeScaling::Yarn { factor, .. } => {
                let [low, high] = self.yarn_bounds();
                let kept = 1.0 - ((index as f32 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / factor * (1.0 - kept) + frequency * kept
            }
        }
    }

    /// Indices of frequencies between which YaRN goes over from keeping to interpolating.
    fn yarn_bounds(&self) -> [f32; 2] {
        let RopeScaling::Yarn {
            beta_fast,
            beta_slow,
            original_positions,
            truncate,
            ..
        } = self.scaling
        else {
            unreachable!("asked for by YaRN alone")
        };
        let dimensions = f64::from(self.dimensions);
        let index_of = |turns: f32| {
            let positions = f64::from(original_positions) / f64::from(turns);
            dimensions * (positions / std::f64::consts::TAU).ln()
                / (2.0 * f64::from(self.theta).ln())
        };
        let (mut low, mut high) = (index_of(beta_fast), index_of(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dimensions - 1.0));
        if low == high {
            high += 0.001;
        }
        [low as f32, high as f32]
    }
}
