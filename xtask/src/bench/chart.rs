//! Bars as SVG: a name, a bar, a number. Colours that a light page and a dark one both show.

use std::fmt::Write as _;

/// Sizes of the drawing; pages scale it.
const WIDTH: f64 = 720.0;
const ROW: f64 = 26.0;
const HEAD: f64 = 30.0;
/// Room for names, and for numbers behind the longest bar.
const NAMES: f64 = 190.0;
const NUMBERS: f64 = 90.0;

/// A drawing of values from 0; `None` if there are none.
pub fn bars(title: &str, unit: &str, values: &[(String, f64)]) -> Option<String> {
    let highest = values.iter().map(|(_, value)| *value).reduce(f64::max)?.max(f64::MIN_POSITIVE);
    let height = HEAD + ROW * values.len() as f64 + 6.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"#6e7781\"><title>{title}</title><text x=\"0\" y=\"16\" font-weight=\"bold\">{title}, \
         {unit}</text>"
    );
    for (number, (name, value)) in values.iter().enumerate() {
        let (y, length) = (HEAD + ROW * number as f64, value / highest * (WIDTH - NAMES - NUMBERS));
        let (text_y, name_x, value_x) = (y + 15.0, NAMES - 8.0, NAMES + length + 6.0);
        write!(
            svg,
            "<text x=\"{name_x}\" y=\"{text_y}\" text-anchor=\"end\">{name}</text><rect x=\"{NAMES}\" y=\"{y}\" \
             width=\"{length:.1}\" height=\"20\" rx=\"2\" fill=\"#2a6fdb\"/><text x=\"{value_x:.1}\" y=\"{text_y}\">{}</text>",
            short(*value)
        )
        .expect("a string takes all");
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// A number with three digits or so.
pub fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_value_has_the_longest_bar_and_each_its_number() {
        let values = [("a".to_owned(), 50.0), ("b".to_owned(), 100.0)];
        let svg = bars("Cost", "µs", &values).expect("something to draw");
        assert!(svg.contains("width=\"220.0\"") && svg.contains("width=\"440.0\""), "{svg}");
        assert!(svg.contains(">50.0</text>") && svg.contains(">100</text>") && svg.contains("Cost, µs"), "{svg}");
        assert_eq!(bars("Cost", "µs", &[]), None);
    }
}
