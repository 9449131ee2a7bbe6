//! When requests are to be sent that do not wait for one another.

use std::time::Duration;

use rand_distr::{Distribution, Gamma};

use crate::LoadError;
use crate::random::generator;

/// The shape of the gamma distribution that pauses are drawn from: 1 is a Poisson process, less comes in bursts, more is more
/// even, and infinity is a metronome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burstiness(f64);

impl Default for Burstiness {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Burstiness {
    /// # Errors
    ///
    /// If it is not above 0.
    pub fn new(shape: f64) -> Result<Self, LoadError> {
        if shape >= 1e-3 {
            Ok(Self(shape))
        } else {
            Err(LoadError::new("burstiness must be at least 0.001"))
        }
    }

    /// The shape.
    pub fn shape(self) -> f64 {
        self.0
    }
}

/// `count` times of arrival at `rate` requests a second. As in vLLM's benchmark, they are stretched so that the last comes
/// after exactly `count / rate` seconds: runs with different seeds have the same load.
///
/// # Errors
///
/// If the rate is not a number above 0.
pub fn arrivals(
    count: usize,
    rate: f64,
    burstiness: Burstiness,
    seed: u64,
) -> Result<Vec<Duration>, LoadError> {
    if !(rate.is_finite() && rate > 0.0) {
        return Err(LoadError::new("a rate must be a number above 0"));
    }
    let mut random = generator(seed, u64::MAX);
    let mut times = Vec::with_capacity(count);
    let mut time = 0.0;
    if burstiness.0.is_infinite() {
        times.extend((1..=count).map(|number| number as f64 / rate));
    } else {
        let pauses = Gamma::new(burstiness.0, 1.0 / (rate * burstiness.0))
            .map_err(|error| LoadError::new(format!("arrivals cannot be drawn: {error}")))?;
        for _ in 0..count {
            time += pauses.sample(&mut random);
            times.push(time);
        }
    }
    let stretch = match times.last() {
        Some(last) if *last > 0.0 => count as f64 / rate / last,
        _ => 1.0,
    };
    let stretched = times
        .into_iter()
        .map(|time| Duration::try_from_secs_f64(time * stretch));
    stretched
        .collect::<Result<_, _>>()
        .map_err(|_| LoadError::new("so low a rate takes too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Spread;

    fn pauses(shape: f64) -> Spread {
        let times = arrivals(20_000, 50.0, Burstiness::new(shape).unwrap(), 7).unwrap();
        let pairs = times.windows(2);
        let pauses = pairs.map(|pair| (pair[1] - pair[0]).as_secs_f64());
        Spread::of(pauses.collect(), &[]).unwrap()
    }

    #[test]
    fn arrivals_have_their_rate_and_their_burstiness() {
        // Of a gamma distribution, deviation over mean is one over the root of the shape.
        for (shape, variation) in [(1.0, 1.0), (0.25, 2.0), (4.0, 0.5), (f64::INFINITY, 0.0)] {
            let spread = pauses(shape);
            assert!((spread.mean - 0.02).abs() < 1e-4, "{shape}: {spread:?}");
            let found = spread.std / spread.mean;
            assert!((found - variation).abs() < 0.06, "{shape}: {found}");
        }
    }

    #[test]
    fn pauses_of_a_poisson_process_are_exponential() {
        let times = arrivals(20_000, 1.0, Burstiness::default(), 3).unwrap();
        let long = times
            .windows(2)
            .filter(|pair| pair[1] - pair[0] > Duration::from_secs(2));
        let fraction = long.count() as f64 / 20_000.0;
        assert!((fraction - (-2.0_f64).exp()).abs() < 0.01, "{fraction}");
    }

    #[test]
    fn the_last_arrival_is_when_the_rate_says() {
        for seed in 0..4 {
            let times = arrivals(100, 5.0, Burstiness::default(), seed).unwrap();
            assert!((times[99].as_secs_f64() - 20.0).abs() < 1e-6);
            assert!(times.is_sorted());
        }
        let of = |seed| arrivals(100, 5.0, Burstiness::default(), seed).unwrap();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(
                arrivals(1, rate, Burstiness::default(), 0).is_err(),
                "{rate}"
            );
        }
        assert!(arrivals(2, 1e-300, Burstiness::default(), 0).is_err());
        assert!(Burstiness::new(0.0).is_err() && Burstiness::new(f64::NAN).is_err());
        assert!(
            arrivals(0, 1.0, Burstiness::default(), 0)
                .unwrap()
                .is_empty()
        );
    }
}
