//! Charts as SVG, in units of their own; the page scales them. Values that are no numbers are left out.

mod axis;
mod distribution;
mod forest;
mod plot;

pub use axis::Axis;
pub use distribution::{cumulative, histogram};
pub use forest::{Forest, ForestRow};
pub use plot::{Layer, Mark, Plot, Shape};

/// Width of a chart.
const WIDTH: f64 = 640.0;
/// Width of a character of a chart's text, by rough measure.
const CHARACTER: f64 = 5.9;

/// The opening tag: an image, with its name for those who do not see it.
fn open(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        crate::markup::escape(title)
    )
}

/// Text that is no longer than so many characters.
fn shortened(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let start: String = text.chars().take(characters.saturating_sub(1)).collect();
    format!("{}…", start.trim_end())
}
