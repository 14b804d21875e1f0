//! Charts as SVG: one line for each subject, a bar to its median, a whisker from the least to the greatest.

use std::fmt::Write as _;

use crate::spread::Spread;

/// Measures of a chart, in pixels.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 240.0;
const RIGHT: f64 = 120.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 62.0;
const BAR: f64 = 15.0;
/// Between the groups of two subjects.
const GAP: f64 = 10.0;
/// Colours of the series, apart in lightness too.
const COLOURS: [&str; 4] = ["#2f5d8a", "#e08e2b", "#5b9a68", "#a34a5c"];
/// Fonts that the machine which shows it may have.
const FONTS: &str = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif";

/// A chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// Under the title: how it was measured.
    pub(crate) subtitle: String,
    /// What the axis shows, with its unit.
    pub(crate) axis: String,
    /// What the bars of a group are, from top to bottom.
    pub(crate) series: Vec<String>,
    /// A group for each subject: as many bars as there are series.
    pub(crate) groups: Vec<(String, Vec<Option<Spread>>)>,
}

impl Chart {
    /// The chart as SVG; nothing when there is nothing to show.
    pub(crate) fn svg(&self) -> Option<String> {
        let axis = Axis::of(self.groups.iter().flat_map(|(_, bars)| bars.iter().flatten()))?;
        let group = BAR * self.series.len() as f64 + GAP;
        let bottom = TOP + group * self.groups.len() as f64;
        let height = bottom + BOTTOM;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"{FONTS}\" font-size=\"13\" fill=\"#222\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        let mut add = |element: String| svg.push_str(&(element + "\n"));
        add(text(16.0, 26.0, "start", "font-size=\"17\" font-weight=\"bold\"", &self.title));
        add(text(16.0, 46.0, "start", "fill=\"#555\" font-size=\"12\"", &self.subtitle));
        for (index, name) in self.series.iter().enumerate().filter(|_| self.series.len() > 1) {
            let x = LEFT + 150.0 * index as f64;
            add(format!("<rect x=\"{x}\" y=\"56\" width=\"12\" height=\"12\" fill=\"{}\"/>", colour(index)));
            add(text(x + 18.0, 67.0, "start", "", name));
        }
        for (value, label) in axis.marks() {
            let x = axis.place(value);
            add(format!("<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#ddd\"/>"));
            add(text(x, bottom + 18.0, "middle", "fill=\"#555\"", &label));
        }
        add(text(f64::midpoint(LEFT, WIDTH - RIGHT), bottom + 42.0, "middle", "", &self.axis));
        for (index, (name, bars)) in self.groups.iter().enumerate() {
            let top = TOP + group * index as f64 + GAP / 2.0;
            add(text(LEFT - 10.0, top + (group - GAP) / 2.0 + 4.5, "end", "", name));
            for (series, spread) in bars.iter().enumerate() {
                let y = top + BAR * series as f64;
                add(spread.map_or_else(
                    || text(LEFT + 6.0, y + 12.0, "start", "fill=\"#888\"", "-"),
                    |spread| bar(&axis, y, colour(series), spread),
                ));
            }
        }
        add(format!("<line x1=\"{LEFT}\" y1=\"{TOP}\" x2=\"{LEFT}\" y2=\"{bottom:.1}\" stroke=\"#222\"/>"));
        svg.push_str("</svg>\n");
        Some(svg)
    }
}

/// A bar with its whisker and its value.
fn bar(axis: &Axis, y: f64, colour: &str, spread: Spread) -> String {
    let [least, middle, most] = [spread.min, spread.median, spread.max].map(|value| axis.place(value));
    let (height, centre) = (BAR - 3.0, y + (BAR - 3.0) / 2.0);
    let mut bar = format!(
        "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height}\" fill=\"{colour}\"/>",
        (middle - LEFT).max(0.0)
    );
    // Writing to a string cannot fail.
    let _ = write!(
        bar,
        "<path d=\"M{least:.1} {centre:.1}H{most:.1}M{least:.1} {0:.1}v6M{most:.1} {0:.1}v6\" stroke=\"#222\" fill=\"none\"/>",
        centre - 3.0
    );
    bar + &text(most + 6.0, y + 11.0, "start", "font-size=\"12\"", &number(spread.median))
}

fn colour(series: usize) -> &'static str {
    COLOURS[series % COLOURS.len()]
}

fn text(x: f64, y: f64, anchor: &str, more: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>")
}

/// Where values lie: by powers of ten.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// One that holds all these values; none without any but zeros.
    fn of<'a>(values: impl Iterator<Item = &'a Spread>) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, 0.0f64);
        for spread in values.filter(|spread| spread.median > 0.0) {
            // A spread may begin at zero.
            low = low.min(spread.min.max(spread.median / 10.0));
            high = high.max(spread.max);
        }
        // A bar of the least value must be seen.
        (high > 0.0).then(|| Self { low: (low / 2.0).log10(), high: high.log10() })
    }

    fn place(&self, value: f64) -> f64 {
        let value = value.max(f64::MIN_POSITIVE).log10();
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    /// Values to mark, with their labels.
    fn marks(&self) -> Vec<(f64, String)> {
        let powers = self.low.floor() as i32..=self.high.ceil() as i32;
        let marks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        let inside = marks.filter(|value| (self.low..=self.high).contains(&value.log10()));
        inside.map(|value| (value, number(value))).collect()
    }
}

/// A number with three digits and a suffix.
fn number(value: f64) -> String {
    let (value, suffix) = match value {
        1e6.. => (value / 1e6, " M"),
        1e4.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64) -> Spread {
        Spread { min: median * 0.9, median, max: median * 1.1 }
    }

    fn chart() -> Chart {
        let bars = vec![Some(spread(1000.0)), None];
        let groups = vec![("a & b".to_owned(), bars), ("c".to_owned(), vec![Some(spread(3e6)); 2])];
        let series = vec!["64".to_owned(), "1400".to_owned()];
        Chart { title: "t".into(), subtitle: "s".into(), axis: "packets".into(), series, groups }
    }

    #[test]
    fn bars_stay_inside() {
        let svg = chart().svg().unwrap();
        assert!(svg.contains("a &amp; b") && svg.contains(">3 M<"));
        let bars = svg.split("<rect x=\"240\"").skip(1);
        let widths: Vec<f64> = bars
            .filter_map(|bar| bar.split_once(" width=\"")?.1.split_once('"')?.0.parse().ok())
            .filter(|width| *width != 12.0)
            .collect();
        assert_eq!(widths.len(), 3);
        assert!(widths.iter().all(|width| (1.0..=WIDTH - LEFT - RIGHT).contains(width)), "{widths:?}");
    }

    #[test]
    fn nothing_makes_no_chart() {
        assert_eq!(Chart { groups: Vec::new(), ..chart() }.svg(), None);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(683_412.0), "683 k");
        assert_eq!(number(3_072_000.0), "3.07 M");
        assert_eq!(number(50.0), "50");
        assert_eq!(number(0.0), "0");
    }
}
