//! A chart as SVG text: lines, steps, dots and shaded spans over two linear axes.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 48.0;

/// Colours that can be told apart by most eyes (Okabe and Ito).
pub(crate) const BLUE: &str = "#0072b2";
pub(crate) const ORANGE: &str = "#e69f00";
pub(crate) const GREEN: &str = "#009e73";
pub(crate) const RED: &str = "#d55e00";
pub(crate) const GREY: &str = "#999999";

/// A chart under construction.
pub(crate) struct Chart {
    x: (f64, f64),
    y: (f64, f64),
    body: String,
    legend: Vec<(String, &'static str)>,
    title: String,
    labels: (&'static str, &'static str),
}

impl Chart {
    pub(crate) fn new(
        title: &str,
        labels: (&'static str, &'static str),
        x: (f64, f64),
        y: (f64, f64),
    ) -> Self {
        Self { x, y, body: String::new(), legend: Vec::new(), title: title.to_owned(), labels }
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (from, to) = self.x;
        let (low, high) = self.y;
        let across = LEFT + (x - from) / (to - from) * (WIDTH - LEFT - RIGHT);
        let up = HEIGHT - BOTTOM - (y.clamp(low, high) - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
        (across, up)
    }

    fn named(&mut self, name: &str, colour: &'static str) {
        if !name.is_empty() {
            self.legend.push((name.to_owned(), colour));
        }
    }

    /// Dots, one for each point.
    pub(crate) fn dots(&mut self, name: &str, colour: &'static str, points: &[(f64, f64)]) {
        self.named(name, colour);
        for point in points {
            let (x, y) = self.at(*point);
            let _ = writeln!(self.body, "<circle cx='{x:.1}' cy='{y:.1}' r='2.4' fill='{colour}'/>");
        }
    }

    /// A line that stays at a value until the next.
    pub(crate) fn steps(&mut self, name: &str, colour: &'static str, points: &[(f64, f64)]) {
        let mut path = Vec::new();
        let mut before: Option<f64> = None;
        for (at, (x, y)) in points.iter().enumerate() {
            let last = at + 1 == points.len();
            if before != Some(*y) || last {
                path.extend(before.map(|before| (*x, before)));
                path.push((*x, *y));
                before = Some(*y);
            }
        }
        self.line(name, colour, &path);
    }

    /// A line through the points.
    pub(crate) fn line(&mut self, name: &str, colour: &'static str, points: &[(f64, f64)]) {
        self.named(name, colour);
        let mut text = String::new();
        for point in points {
            let (x, y) = self.at(*point);
            let _ = write!(text, "{x:.1},{y:.1} ");
        }
        let text = text.trim_end();
        let _ =
            writeln!(self.body, "<polyline points='{text}' fill='none' stroke='{colour}' stroke-width='2'/>");
    }

    /// A shaded span of the horizontal axis with a word in it.
    pub(crate) fn span(&mut self, from: f64, to: f64, word: &str) {
        let ((left, top), (right, bottom)) = (self.at((from, self.y.1)), self.at((to, self.y.0)));
        let (width, height, middle) = (right - left, bottom - top, left.midpoint(right));
        let _ = writeln!(
            self.body,
            "<rect x='{left:.1}' y='{top:.1}' width='{width:.1}' height='{height:.1}' fill='#f0f0f0'/>\
             <text x='{middle:.1}' y='{:.1}' text-anchor='middle' fill='#666666'>{word}</text>",
            top + 14.0
        );
    }

    /// The whole, as a document.
    pub(crate) fn svg(self) -> String {
        let mut out = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' font-family='sans-serif' font-size='12'>\n\
             <rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>\n\
             <text x='{LEFT}' y='20' font-size='15' font-weight='bold'>{}</text>\n",
            self.title
        );
        let mut across = LEFT;
        for (name, colour) in &self.legend {
            let _ = writeln!(
                out,
                "<rect x='{across:.0}' y='34' width='12' height='12' fill='{colour}'/><text x='{:.0}' y='44'>{name}</text>",
                across + 17.0
            );
            #[expect(clippy::cast_precision_loss, reason = "the length of a word")]
            let width = name.chars().count() as f64 * 6.2;
            across += 34.0 + width;
        }
        for tick in 0..=5 {
            let share = f64::from(tick) / 5.0;
            let (x, y) = (self.x.0 + share * (self.x.1 - self.x.0), self.y.0 + share * (self.y.1 - self.y.0));
            let ((left, bottom), (_, up)) = (self.at((x, self.y.0)), self.at((self.x.0, y)));
            let _ = writeln!(
                out,
                "<line x1='{LEFT}' y1='{up:.1}' x2='{:.1}' y2='{up:.1}' stroke='#dddddd'/>\
                 <text x='{:.1}' y='{:.1}' text-anchor='end'>{y:.0}</text>\
                 <text x='{left:.1}' y='{:.1}' text-anchor='middle'>{x:.0}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                up + 4.0,
                bottom + 16.0
            );
        }
        let (across, up) = self.labels;
        let _ = writeln!(
            out,
            "{}<text x='{:.0}' y='{:.0}' text-anchor='end'>{across}</text>\
             <text x='8' y='{:.0}'>{up}</text>\n</svg>",
            self.body,
            WIDTH - RIGHT,
            HEIGHT - 12.0,
            TOP - 10.0
        );
        out
    }
}
