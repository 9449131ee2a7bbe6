//! Curves, steps, bars and marks over two axes.

use std::fmt::Write;

use super::axis::{Axis, Span};
use super::{CHARACTER, WIDTH, open, shortened};
use crate::markup::{Markup, escape};
use crate::parts::chart_style;

const RIGHT: f64 = 12.0;
const BOTTOM: f64 = 36.0;
const LINE: f64 = 16.0;
const DOT: f64 = 3.5;
/// Colours that the style sheet has.
const SERIES: usize = 6;
/// Points of a curve up to which each has a dot, with its values.
const DOTTED_MAX: usize = 60;
/// Characters of a name.
const NAME_CHARACTERS_MAX: usize = 60;

/// A chart with two axes.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows, for those who do not see it.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// What is drawn, the first at the bottom. Layers of one name have one colour.
    pub layers: Vec<Layer>,
    /// Height, where the width is 640.
    pub height: f64,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub enum Layer {
    /// Points, joined by lines.
    Line(String, Vec<(f64, f64)>),
    /// Points, whose height lasts up to the next.
    Steps(String, Vec<(f64, f64)>),
    /// An area: x, and from where to where.
    Area(String, Vec<(f64, f64, f64)>),
    /// Bars: from, to, and their height.
    Bars(String, Vec<(f64, f64, f64)>),
    /// Things of their own.
    Marks(Vec<Mark>),
    /// A stretch of the horizontal axis.
    Shade(f64, f64),
    /// A line at a place of the horizontal axis, with its name.
    RuleX(String, f64),
    /// A line at a place of the vertical axis, with its name.
    RuleY(String, f64),
}

/// One thing in a chart.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// Where.
    pub y: f64,
    /// How it is drawn.
    pub shape: Shape,
    /// A name in the style sheet, which gives it its `color`.
    pub class: &'static str,
    /// What it is.
    pub title: String,
}

/// How a mark is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A disc.
    Circle,
    /// A square.
    Square,
    /// Two strokes.
    Cross,
}

impl Plot {
    /// A chart of ordinary height.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis, layers: Vec<Layer>) -> Self {
        Self {
            title: title.into(),
            x,
            y,
            layers,
            height: 240.0,
        }
    }

    /// An image for a page.
    pub fn svg(&self) -> Markup {
        Markup::raw(self.draw(""))
    }

    /// An image that stands alone, as a file.
    pub fn file(&self) -> String {
        let style = format!(
            "<style>{} svg {{ background: var(--panel); }}</style>",
            chart_style()
        );
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n",
            self.draw(&style)
        )
    }

    fn draw(&self, style: &str) -> String {
        let frame = Frame::of(self);
        let mut image = open(self.height, &self.title);
        image.push_str(style);
        // What is shaded lies below the grid.
        for layer in &self.layers {
            frame.shade(&mut image, layer);
        }
        frame.axes(&mut image, self);
        for layer in &self.layers {
            frame.layer(&mut image, layer);
        }
        frame.legend(&mut image);
        image.push_str("</svg>");
        image
    }
}

/// Where things lie.
struct Frame<'a> {
    x: Span,
    y: Span,
    left: f64,
    top: f64,
    bottom: f64,
    names: Vec<&'a str>,
    plot: &'a Plot,
}

impl<'a> Frame<'a> {
    fn of(plot: &'a Plot) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for name in plot.layers.iter().filter_map(Layer::series) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let legend = if names.len() > 1 { LINE } else { 0.0 };
        let title = if plot.y.label.is_empty() { 0.0 } else { LINE };
        let (top, bottom) = (8.0 + legend + title, plot.height - BOTTOM);
        let y = plot.y.span(plot.values(Layer::ys), bottom, top);
        let widest = y
            .marks()
            .into_iter()
            .map(|mark| plot.y.text(mark).chars().count())
            .max();
        let left = widest.unwrap_or(0) as f64 * CHARACTER + 10.0;
        let x = plot.x.span(plot.values(Layer::xs), left, WIDTH - RIGHT);
        Self {
            x,
            y,
            left,
            top,
            bottom,
            names,
            plot,
        }
    }

    fn class(&self, name: &str) -> String {
        let number = self.names.iter().position(|other| *other == name);
        format!("series-{}", number.unwrap_or(0) % SERIES + 1)
    }

    // Writing to a string does not fail.

    fn shade(&self, image: &mut String, layer: &Layer) {
        if let Layer::Shade(from, to) = layer {
            let (from, to) = (self.x.at(*from), self.x.at(*to));
            let _ = write!(
                image,
                "<rect class=\"shade\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                self.top,
                (to - from).max(0.0),
                self.bottom - self.top
            );
        }
    }

    fn axes(&self, image: &mut String, plot: &Plot) {
        let right = WIDTH - RIGHT;
        for mark in self.y.marks() {
            let y = self.y.at(mark);
            let _ = write!(
                image,
                "<line class=\"grid\" x1=\"{:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                self.left,
                self.left - 5.0,
                y + 4.0,
                escape(&plot.y.text(mark))
            );
        }
        for mark in self.x.marks() {
            let x = self.x.at(mark);
            let anchor = if x > right - 12.0 { "end" } else { "middle" };
            let _ = write!(
                image,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                self.bottom + 14.0,
                escape(&plot.x.text(mark))
            );
        }
        let _ = write!(
            image,
            "<text x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"0\" y=\"{:.1}\">{}</text>",
            self.bottom + 29.0,
            escape(&plot.x.label),
            self.top - 8.0,
            escape(&plot.y.label)
        );
    }

    fn layer(&self, image: &mut String, layer: &Layer) {
        match layer {
            Layer::Line(name, points) => self.line(image, name, points),
            Layer::Steps(name, points) => self.steps(image, name, points),
            Layer::Area(name, points) => self.area(image, name, points),
            Layer::Bars(name, bars) => self.bars(image, name, bars),
            Layer::Marks(marks) => marks.iter().for_each(|mark| self.mark(image, mark)),
            Layer::Shade(..) => {}
            Layer::RuleX(name, at) => self.rule_x(image, name, *at),
            Layer::RuleY(name, at) => self.rule_y(image, name, *at),
        }
    }

    fn line(&self, image: &mut String, name: &str, points: &[(f64, f64)]) {
        let class = self.class(name);
        let points: Vec<(f64, f64)> = points.iter().copied().filter(finite).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| self.place(*x, *y)).collect();
        if !path.is_empty() {
            let _ = write!(
                image,
                "<path class=\"line {class}\" d=\"M{}\"/>",
                path.join("L")
            );
        }
        if points.len() > DOTTED_MAX {
            return;
        }
        for (x, y) in points {
            let _ = write!(
                image,
                "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{}: {}, {}</title></circle>",
                self.x.at(x),
                self.y.at(y),
                escape(name),
                escape(&self.plot.x.text(x)),
                escape(&self.plot.y.text(y))
            );
        }
    }

    fn steps(&self, image: &mut String, name: &str, points: &[(f64, f64)]) {
        let mut points = points.iter().filter(|point| finite(point));
        let Some((x, y)) = points.next() else {
            return;
        };
        let mut path = format!("M{}", self.place(*x, *y));
        for (x, y) in points {
            let _ = write!(path, "H{:.1}V{:.1}", self.x.at(*x), self.y.at(*y));
        }
        let _ = write!(
            image,
            "<path class=\"line {}\" d=\"{path}\"/>",
            self.class(name)
        );
    }

    fn area(&self, image: &mut String, name: &str, points: &[(f64, f64, f64)]) {
        let usable = |(x, low, high): &&(f64, f64, f64)| finite(&(*x, *low)) && high.is_finite();
        let points: Vec<_> = points.iter().filter(usable).collect();
        let there = points.iter().map(|(x, low, _)| self.place(*x, *low));
        let back = points
            .iter()
            .rev()
            .map(|(x, _, high)| self.place(*x, *high));
        let path: Vec<String> = there.chain(back).collect();
        if !path.is_empty() {
            let _ = write!(
                image,
                "<path class=\"area {}\" d=\"M{}Z\"/>",
                self.class(name),
                path.join("L")
            );
        }
    }

    fn bars(&self, image: &mut String, name: &str, bars: &[(f64, f64, f64)]) {
        let class = self.class(name);
        for (from, to, height) in bars {
            if !(finite(&(*from, *to)) && height.is_finite()) {
                continue;
            }
            let (left, right, y) = (self.x.at(*from), self.x.at(*to), self.y.at(*height));
            let _ = write!(
                image,
                "<rect class=\"bar {class}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{} to {}: {}</title></rect>",
                left + 0.5,
                (right - left - 1.0).max(0.5),
                self.bottom - y,
                escape(&self.plot.x.text(*from)),
                escape(&self.plot.x.text(*to)),
                escape(&self.plot.y.text(*height))
            );
        }
    }

    fn mark(&self, image: &mut String, mark: &Mark) {
        if !finite(&(mark.x, mark.y)) {
            return;
        }
        let (x, y) = (self.x.at(mark.x), self.y.at(mark.y));
        let (class, title) = (mark.class, escape(&mark.title));
        let _ = match mark.shape {
            Shape::Circle => write!(
                image,
                "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{DOT}\"><title>{title}</title></circle>"
            ),
            Shape::Square => write!(
                image,
                "<rect class=\"dot {class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{2}\" height=\"{2}\"><title>{title}</title></rect>",
                x - DOT,
                y - DOT,
                DOT * 2.0
            ),
            Shape::Cross => write!(
                image,
                "<path class=\"cross {class}\" d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\"><title>{title}</title></path>",
                x - 4.0,
                y - 4.0
            ),
        };
    }

    fn rule_x(&self, image: &mut String, name: &str, at: f64) {
        if !at.is_finite() {
            return;
        }
        let x = self.x.at(at);
        let right = x + name.chars().count() as f64 * CHARACTER > WIDTH - RIGHT;
        let (anchor, from) = if right {
            ("end", x - 4.0)
        } else {
            ("start", x + 4.0)
        };
        let _ = write!(
            image,
            "<line class=\"rule\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"strong label\" x=\"{from:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            self.top,
            self.bottom,
            self.top + 11.0,
            escape(name)
        );
    }

    fn rule_y(&self, image: &mut String, name: &str, at: f64) {
        if !at.is_finite() {
            return;
        }
        let y = self.y.at(at);
        let _ = write!(
            image,
            "<line class=\"rule\" x1=\"{:.1}\" x2=\"{1:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"strong label\" x=\"{1:.1}\" y=\"{2:.1}\" text-anchor=\"end\">{3}</text>",
            self.left,
            WIDTH - RIGHT,
            y - 4.0,
            escape(name)
        );
    }

    fn legend(&self, image: &mut String) {
        if self.names.len() < 2 {
            return;
        }
        let mut x = 0.0;
        for name in &self.names {
            let text = shortened(name, NAME_CHARACTERS_MAX);
            let _ = write!(
                image,
                "<rect class=\"dot {}\" x=\"{x:.1}\" y=\"3\" width=\"9\" height=\"9\" rx=\"2\"/>\
                 <text class=\"strong\" x=\"{:.1}\" y=\"11.5\">{}</text>",
                self.class(name),
                x + 13.0,
                escape(&text)
            );
            x += 13.0 + text.chars().count() as f64 * CHARACTER + 18.0;
        }
    }

    fn place(&self, x: f64, y: f64) -> String {
        format!("{:.1} {:.1}", self.x.at(x), self.y.at(y))
    }
}

impl Plot {
    fn values(&self, of: fn(&Layer) -> Vec<f64>) -> impl Iterator<Item = f64> {
        self.layers.iter().flat_map(of)
    }
}

impl Layer {
    fn series(&self) -> Option<&str> {
        match self {
            Self::Line(name, _) | Self::Steps(name, _) => Some(name),
            Self::Area(name, _) | Self::Bars(name, _) => Some(name),
            _ => None,
        }
    }

    fn xs(&self) -> Vec<f64> {
        match self {
            Self::Line(_, points) | Self::Steps(_, points) => {
                points.iter().map(|point| point.0).collect()
            }
            Self::Area(_, points) => points.iter().map(|point| point.0).collect(),
            Self::Bars(_, bars) => bars.iter().flat_map(|bar| [bar.0, bar.1]).collect(),
            Self::Marks(marks) => marks.iter().map(|mark| mark.x).collect(),
            Self::Shade(from, to) => vec![*from, *to],
            Self::RuleX(_, at) => vec![*at],
            Self::RuleY(..) => Vec::new(),
        }
    }

    fn ys(&self) -> Vec<f64> {
        match self {
            Self::Line(_, points) | Self::Steps(_, points) => {
                points.iter().map(|point| point.1).collect()
            }
            Self::Area(_, points) => points.iter().flat_map(|point| [point.1, point.2]).collect(),
            Self::Bars(_, bars) => bars.iter().map(|bar| bar.2).chain([0.0]).collect(),
            Self::Marks(marks) => marks.iter().map(|mark| mark.y).collect(),
            Self::RuleY(_, at) => vec![*at],
            Self::Shade(..) | Self::RuleX(..) => Vec::new(),
        }
    }
}

fn finite((x, y): &(f64, f64)) -> bool {
    x.is_finite() && y.is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(layers: Vec<Layer>) -> Plot {
        Plot::new(
            "Waits <b>",
            Axis::linear("requests a second"),
            Axis::logarithmic("wait").unit(" s"),
            layers,
        )
    }

    #[test]
    fn larger_values_lie_higher_and_later_ones_further_right() {
        let plot = plot(vec![Layer::Line(
            "p50".into(),
            vec![(1.0, 0.1), (9.0, 5.0)],
        )]);
        let frame = Frame::of(&plot);
        assert!(frame.y.at(5.0) < frame.y.at(0.1) && frame.x.at(1.0) < frame.x.at(9.0));
    }

    #[test]
    fn whatever_is_drawn_has_no_place_that_is_no_number_and_no_foreign_tag() {
        let odd = vec![
            (f64::NAN, 1.0),
            (1.0, 0.0),
            (2.0, f64::INFINITY),
            (3.0, 2.0),
        ];
        let areas = vec![(1.0, 0.1, 0.2), (f64::NAN, 1.0, 1.0), (2.0, 0.2, f64::NAN)];
        let mark = |shape| Mark {
            x: 1.0,
            y: 0.5,
            shape,
            class: "series-1",
            title: "<i>".into(),
        };
        let layers = vec![
            Layer::Shade(1.0, 2.0),
            Layer::Line("<u>".into(), odd.clone()),
            Layer::Steps("steps".into(), odd),
            Layer::Area("steps".into(), areas.clone()),
            Layer::Bars("bars".into(), areas),
            Layer::Marks(
                [Shape::Circle, Shape::Square, Shape::Cross]
                    .map(mark)
                    .into(),
            ),
            Layer::RuleX("knee".into(), 2.5),
            Layer::RuleY("objective".into(), f64::NAN),
        ];
        let image = plot(layers).file();
        for wrong in ["NaN", "inf", "<u>", "<i>", "<b>", "objective"] {
            assert!(!image.contains(wrong), "{wrong}: {image}");
        }
        for right in [
            "aria-label=\"Waits &lt;b&gt;\"",
            ">knee<",
            "class=\"shade\"",
            "series-3",
        ] {
            assert!(image.contains(right), "{right}: {image}");
        }
        assert!(plot(Vec::new()).svg().as_str().ends_with("</svg>"));
    }
}
