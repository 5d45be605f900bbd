//! Line plots of the curves.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::figures::short;
use super::strip::{Drawn, WIDTH, head, mark, text};
use super::style::{FAINT, INK, RULE, look};
use crate::scaling::Curve;

const HEIGHT: i32 = 560;

/// The plot of a curve, as SVG. Both axes are logarithmic.
pub fn plot(curve: &Curve, lines: &[(String, Vec<(f64, f64)>)]) -> Drawn<String> {
    let mut svg = String::new();
    draw(curve, lines, &mut svg)?;
    Ok(svg)
}

fn draw(curve: &Curve, lines: &[(String, Vec<(f64, f64)>)], svg: &mut String) -> Drawn {
    let area = SVGBackend::with_string(svg, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
    let peers: Vec<String> = lines.iter().map(|(peer, _)| peer.clone()).collect();
    let top = head(&area, curve.title, "lower and flat is better; medians", &peers)?;
    let points = || lines.iter().flat_map(|(_, line)| line.iter().copied());
    let bounds = |pick: fn((f64, f64)) -> f64| {
        let values = || points().map(pick);
        let low = values().fold(f64::INFINITY, f64::min);
        (low, values().fold(low, f64::max))
    };
    let ((x_low, x_high), (y_low, y_high)) = (bounds(|p| p.0), bounds(|p| p.1));
    let mut chart = ChartBuilder::on(&area)
        .margin_top(top - 12)
        .margin_left(12)
        .margin_right(36)
        .margin_bottom(8)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (x_low..x_high * 1.0001).log_scale(),
            (y_low * 0.8..y_high * 1.25).log_scale(),
        )?;
    chart
        .configure_mesh()
        .bold_line_style(RULE)
        .light_line_style(WHITE)
        .axis_style(FAINT)
        .x_desc(curve.x_label)
        .y_desc(curve.y_label)
        .disable_x_mesh()
        // The points have labels of their own, below.
        .x_label_formatter(&|_| String::new())
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(("sans-serif", 13).into_font().color(&FAINT))
        .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
        .draw()?;
    let mut xs: Vec<f64> = points().map(|point| point.0).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    for x in xs {
        let (at, bottom) = chart.backend_coord(&(x, y_low * 0.8));
        let (_, above) = chart.backend_coord(&(x, y_high * 1.25));
        let rule = PathElement::new(vec![(at, above), (at, bottom)], RULE.stroke_width(1));
        area.draw(&rule)?;
        text(&area, &short(x), (at, bottom + 16), 13, FAINT, HPos::Center)?;
    }
    let mut order: Vec<&(String, Vec<(f64, f64)>)> = lines.iter().collect();
    order.sort_by_key(|(peer, _)| look(peer).is_ours);
    for (peer, line) in order {
        let look = look(peer);
        let width = if look.is_ours { 3 } else { 1 };
        let style = look.colour.stroke_width(width);
        chart.draw_series(LineSeries::new(line.iter().copied(), style))?;
        for point in line {
            mark(&area, look, chart.backend_coord(point))?;
        }
    }
    area.present()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::CURVES;

    #[test]
    fn a_curve_has_its_labels_and_lines() {
        let line = |factor: f64| vec![(1e6, 10.0 * factor), (1e8, 30.0 * factor)];
        let lines = [("glibc".to_owned(), line(2.0)), ("tiermalloc".to_owned(), line(1.0))];
        let svg = plot(&CURVES[0], &lines).unwrap();
        assert!(svg.contains("tiermalloc") && svg.contains("bytes alive"), "{svg}");
        assert!(svg.matches("<polyline").count() >= 2);
    }
}
