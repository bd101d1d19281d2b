//! Curves as SVG within a page: no script, colours by the page's own variables.

use std::fmt::Write as _;

use crate::metrics::Unit;

/// Size of the drawing; the page scales it. Letters are large enough for a phone at this size.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 240.0;
/// Room for the ticks' labels.
const LEFT: f64 = 74.0;
const BOTTOM: f64 = 26.0;
const TOP: f64 = 10.0;
/// Half a label such as "30 min", which may stand at the end of the axis.
const RIGHT: f64 = 24.0;
/// Points of a curve; more are drawn as their averages or maxima.
const POINTS_MAX: usize = 240;
/// Lines across, about.
const TICKS: f64 = 4.0;

/// How many points become one.
#[derive(Clone, Copy)]
pub enum Thin {
    Mean,
    Max,
}

/// A curve: places on the x axis and values, with gaps where there is none.
pub struct Curve {
    pub name: &'static str,
    pub values: Vec<(f64, Option<f64>)>,
    pub thin: Thin,
}

/// What stands along an axis.
pub struct Axes<'a> {
    pub unit: Unit,
    /// Labels of the x axis, at their places.
    pub labels: &'a [(f64, String)],
}

/// A drawing with all curves; `None` if there is nothing to draw.
pub fn plot(title: &str, curves: &[Curve], axes: &Axes<'_>) -> Option<String> {
    let all = || curves.iter().flat_map(|curve| curve.values.iter());
    let highest = all().filter_map(|(_, value)| *value).reduce(f64::max)?;
    let (first, last) = (all().map(|(x, _)| *x).reduce(f64::min)?, all().map(|(x, _)| *x).reduce(f64::max)?);
    let step = step(axes.unit, highest);
    let top = (highest / step).ceil().max(1.0) * step;
    let at_x = |x: f64| LEFT + (x - first) / (last - first).max(f64::MIN_POSITIVE) * (WIDTH - LEFT - RIGHT);
    let at_y = |value: f64| TOP + (1.0 - value / top) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
    let mut value = 0.0;
    while value <= top * 1.001 {
        let y = at_y(value);
        let label = axes.unit.show(value);
        write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0
        )
        .expect("a string takes all");
        value += step;
    }
    for (x, label) in axes.labels.iter().filter(|(x, _)| (first..=last).contains(x)) {
        let (x, y) = (at_x(*x), HEIGHT - 6.0);
        write!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>").expect("a string takes all");
    }
    for (number, curve) in curves.iter().enumerate() {
        let mut path = String::new();
        let mut is_drawing = false;
        for (x, value) in thinned(curve) {
            if let Some(value) = value {
                let verb = if is_drawing { 'L' } else { 'M' };
                write!(path, "{verb}{:.1} {:.1}", at_x(x), at_y(value)).expect("a string takes all");
            }
            is_drawing = value.is_some();
        }
        write!(svg, "<path class=\"c{number}\" d=\"{path}\"/>").expect("a string takes all");
    }
    svg.push_str("</svg>");
    let legend: String = curves
        .iter()
        .enumerate()
        .map(|(number, curve)| format!("<span class=\"key k{number}\">{}</span>", curve.name))
        .collect();
    Some(format!("<figure><figcaption>{title}<span class=\"keys\">{legend}</span></figcaption>{svg}</figure>\n"))
}

/// The distance of ticks; that of sizes is round in their own unit.
fn step(unit: Unit, highest: f64) -> f64 {
    let scale = if unit == Unit::Bytes { 1024f64.powi(highest.max(1.0).log(1024.0).floor() as i32) } else { 1.0 };
    tick(highest / scale) * scale
}

/// The distance of ticks: 1, 2 or 5 times a power of ten, so that about `TICKS` fit.
fn tick(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let rough = highest / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough).unwrap_or(10.0);
    step * power
}

/// At most `POINTS_MAX` points of a curve.
fn thinned(curve: &Curve) -> Vec<(f64, Option<f64>)> {
    let many = curve.values.len().div_ceil(POINTS_MAX).max(1);
    let together = |part: &[(f64, Option<f64>)]| {
        let known: Vec<f64> = part.iter().filter_map(|(_, value)| *value).collect();
        let value = match curve.thin {
            Thin::Max => known.iter().copied().reduce(f64::max),
            Thin::Mean => (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64),
        };
        (part[0].0, value)
    };
    curve.values.chunks(many).map(together).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_a_few() {
        for (highest, expected) in [(0.0, 1.0), (1.0, 0.5), (9.0, 5.0), (400.0, 100.0), (0.0123, 0.005)] {
            assert!((tick(highest) - expected).abs() < 1e-9, "{highest}: {}", tick(highest));
        }
        assert_eq!(step(Unit::Bytes, 120.0 * 1_048_576.0), 50.0 * 1_048_576.0);
    }

    #[test]
    fn a_long_curve_is_thinned_and_a_gap_is_a_gap() {
        let mut values: Vec<_> = (0..1_000).map(|x| (f64::from(x), Some(f64::from(x % 10)))).collect();
        let curve = |values, thin| Curve { name: "c", values, thin };
        let thin = thinned(&curve(values.clone(), Thin::Max));
        assert_eq!((thin.len(), thin[1].0), (200, 5.0));
        assert!(thin.iter().all(|(_, value)| value.is_some_and(|value| value == 4.0 || value == 9.0)));
        values.truncate(3);
        values[1].1 = None;
        let axes = Axes { unit: Unit::Count, labels: &[] };
        let svg = plot("t", &[curve(values, Thin::Mean)], &axes).expect("something to draw");
        let path = svg.split("d=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 0), "{path}");
        assert!(plot("t", &[curve(vec![(0.0, None)], Thin::Max)], &axes).is_none());
    }
}
