//! Reports as one page that needs nothing else: HTML, a style sheet, and charts as SVG.
//!
//! Text becomes [`Markup`] only when it is escaped. Charts are drawn once, in units of their own, and take their colours from
//! the page, so that they are readable in the light, in the dark and on paper; [`Plot::file`] makes one that stands alone.

mod chart;
mod markup;
mod parts;

pub use chart::{Axis, Forest, ForestRow, Layer, Mark, Plot, Shape, cumulative, histogram};
pub use markup::Markup;
pub use parts::{
    Script, Tone, badge, code, facts, number, page, page_with_script, seconds, section, table,
    tiles,
};
