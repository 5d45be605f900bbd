//! A dot for each allocator in each row, on a logarithmic axis of ratios; and bars of the means.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::style::{BAND, FAINT, INK, Look, RULE, Shape, look};
use crate::summary::{Matrix, Metric};

/// A drawing that is not done yet.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What drawing can come to.
pub type Drawn<T = ()> = std::result::Result<T, DrawingAreaErrorKind<std::io::Error>>;

/// Width of every plot, pixels.
pub const WIDTH: i32 = 1000;
const LEFT: i32 = 150;
const RIGHT: i32 = 30;
const ROW: i32 = 22;
/// Ratios beyond these are drawn at the edge.
const CLIP: (f64, f64) = (1.0 / 16.0, 16.0);
/// Where the axis may have a label.
const TICKS: &[f64] = &[
    0.0625, 0.125, 0.25, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0,
    8.0, 12.0, 16.0,
];

/// Text at a point, `size` pixels high.
pub fn text(
    area: &Area,
    text: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    anchor: HPos,
) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&colour).pos(Pos::new(anchor, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))
}

fn line(area: &Area, from: (i32, i32), to: (i32, i32), colour: RGBColor, width: u32) -> Drawn {
    area.draw(&PathElement::new(vec![from, to], colour.stroke_width(width)))
}

/// The mark of an allocator at a point.
pub fn mark(area: &Area, look: Look, (x, y): (i32, i32)) -> Drawn {
    let colour = look.colour;
    let size = if look.is_ours { 6 } else { 4 };
    if look.is_ours {
        area.draw(&Circle::new((x, y), size + 1, WHITE.filled()))?;
    }
    match look.shape {
        Shape::Disc => area.draw(&Circle::new((x, y), size, colour.mix(0.85).filled())),
        Shape::Ring => area.draw(&Circle::new((x, y), size, colour.stroke_width(2))),
        Shape::Square => {
            let corners = [(x - size, y - size), (x + size, y + size)];
            area.draw(&Rectangle::new(corners, colour.mix(0.85).filled()))
        }
        Shape::Triangle => {
            area.draw(&TriangleMarker::new((x, y), size + 2, colour.mix(0.85).filled()))
        }
    }
}

/// Title and second line at the top, the allocators below; returns where the plot begins.
pub fn head(area: &Area, title: &str, subtitle: &str, peers: &[String]) -> Drawn<i32> {
    area.fill(&WHITE)?;
    text(area, title, (16, 24), 19, INK, HPos::Left)?;
    text(area, subtitle, (16, 46), 13, FAINT, HPos::Left)?;
    let (mut x, mut y) = (24, 72);
    for peer in peers {
        let width = 26 + 8 * peer.chars().count() as i32;
        if x + width > WIDTH - 16 {
            (x, y) = (24, y + 20);
        }
        mark(area, look(peer), (x, y))?;
        text(area, peer, (x + 12, y), 13, INK, HPos::Left)?;
        x += width + 8;
    }
    Ok(y + 28)
}

/// How many lines the allocators take.
fn head_height(peers: &[String]) -> i32 {
    let width: i32 = peers.iter().map(|peer| 34 + 8 * peer.chars().count() as i32).sum();
    100 + 20 * (width / (WIDTH - 60))
}

/// From ratios to pixels.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis that has all of these and 1 on it, within what is drawn at all.
    fn over(ratios: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (0.9f64, 1.1f64);
        for ratio in ratios {
            let ratio = ratio.clamp(CLIP.0, CLIP.1);
            (low, high) = (low.min(ratio), high.max(ratio));
        }
        Self { low: low * 0.94, high: high * 1.06 }
    }

    fn x(&self, ratio: f64) -> i32 {
        let ratio = ratio.clamp(self.low, self.high);
        let share = (ratio / self.low).ln() / (self.high / self.low).ln();
        LEFT + ((WIDTH - LEFT - RIGHT) as f64 * share).round() as i32
    }

    /// Labels that do not touch each other; 1 is always there.
    fn ticks(&self) -> Vec<f64> {
        let mut ticks: Vec<f64> = vec![1.0];
        let inside = TICKS.iter().copied().filter(|tick| (self.low..=self.high).contains(tick));
        let mut by_roundness: Vec<f64> = inside.collect();
        // Powers of two first: they are what the eye looks for.
        by_roundness.sort_by_key(|tick| tick.log2().fract() != 0.0);
        for tick in by_roundness {
            if ticks.iter().all(|other| (self.x(*other) - self.x(tick)).abs() >= 44) {
                ticks.push(tick);
            }
        }
        ticks
    }
}

/// A ratio without needless digits.
fn label(ratio: f64) -> String {
    let text = format!("{ratio:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The strip plot of a metric, as SVG.
pub fn strip(matrix: &Matrix, metric: Metric) -> Drawn<String> {
    let peers = &matrix.peers;
    let top = head_height(peers) + 24;
    let height = top + ROW * (matrix.rows.len() as i32 + 1) + 64;
    let mut svg = String::new();
    {
        let area =
            SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
        let title = format!("{}: {}", matrix.section.title(), metric.title().to_lowercase());
        let subtitle = format!("relative to {}; to the left is better; medians", matrix.reference);
        head(&area, &title, &subtitle, peers)?;
        let ratios = || {
            let cells =
                matrix.rows.iter().flat_map(|row| peers.iter().map(move |peer| (row, peer)));
            cells.filter_map(|(row, peer)| matrix.ratio(row, peer, metric))
        };
        let axis = Axis::over(ratios());
        let bottom = top + ROW * matrix.rows.len() as i32;
        for (number, row) in matrix.rows.iter().enumerate() {
            let y = top + ROW * number as i32;
            if number % 2 == 0 {
                area.draw(&Rectangle::new([(8, y), (WIDTH - 8, y + ROW)], BAND.filled()))?;
            }
            text(&area, row, (LEFT - 14, y + ROW / 2), 13, INK, HPos::Right)?;
        }
        let mean_y = bottom + 12;
        text(&area, "geometric mean", (LEFT - 14, mean_y + ROW / 2), 13, INK, HPos::Right)?;
        for tick in axis.ticks() {
            let (x, is_one) = (axis.x(tick), tick == 1.0);
            let (colour, width) = if is_one { (FAINT, 2) } else { (RULE, 1) };
            line(&area, (x, top), (x, mean_y + ROW), colour, width)?;
            text(&area, &label(tick), (x, top - 10), 12, FAINT, HPos::Center)?;
            text(&area, &label(tick), (x, mean_y + ROW + 14), 12, FAINT, HPos::Center)?;
        }
        line(&area, (8, bottom + 6), (WIDTH - 8, bottom + 6), RULE, 1)?;
        // Ours last, so that it lies above the others.
        let mut order: Vec<&String> = peers.iter().collect();
        order.sort_by_key(|peer| look(peer).is_ours);
        for peer in order {
            for (number, row) in matrix.rows.iter().enumerate() {
                if let Some(ratio) = matrix.ratio(row, peer, metric) {
                    let y = top + ROW * number as i32 + ROW / 2;
                    mark(&area, look(peer), (axis.x(ratio), y))?;
                }
            }
            if let Some((mean, _)) = matrix.mean(peer, metric) {
                mark(&area, look(peer), (axis.x(mean), mean_y + ROW / 2))?;
            }
        }
        area.present()?;
    }
    Ok(svg)
}

/// Bars of the geometric means of time and memory, best first, as SVG.
pub fn means(matrix: &Matrix) -> Drawn<String> {
    let metrics = [Metric::Time, Metric::Cpu, Metric::Peak];
    let height = 84 + ROW * matrix.peers.len() as i32 + 20;
    let mut svg = String::new();
    {
        let area =
            SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
        area.fill(&WHITE)?;
        let title = format!("{}: geometric means", matrix.section.title());
        text(&area, &title, (16, 24), 19, INK, HPos::Left)?;
        let subtitle =
            format!("relative to {}, over all rows; shorter is better", matrix.reference);
        text(&area, &subtitle, (16, 46), 13, FAINT, HPos::Left)?;
        let panel = (WIDTH - 16) / metrics.len() as i32;
        for (number, metric) in metrics.into_iter().enumerate() {
            bars(&area, matrix, metric, 8 + panel * number as i32, panel)?;
        }
        area.present()?;
    }
    Ok(svg)
}

fn bars(area: &Area, matrix: &Matrix, metric: Metric, left: i32, width: i32) -> Drawn {
    let mut means: Vec<(&String, f64)> = matrix
        .peers
        .iter()
        .filter_map(|peer| matrix.mean(peer, metric).map(|(mean, _)| (peer, mean)))
        .collect();
    means.sort_by(|a, b| a.1.total_cmp(&b.1));
    let most = means.last().map_or(1.0, |mean| mean.1);
    let (names, figures) = (106, 46);
    let from = left + names;
    let room = f64::from(width - names - figures);
    text(area, &metric.title().to_lowercase(), (from, 72), 13, FAINT, HPos::Left)?;
    for (number, (peer, mean)) in means.into_iter().enumerate() {
        let y = 84 + ROW * number as i32;
        let look = look(peer);
        let to = from + (room * mean / most) as i32;
        text(area, peer, (from - 6, y + ROW / 2), 13, INK, HPos::Right)?;
        let colour = look.colour.mix(if look.is_ours { 1.0 } else { 0.55 });
        area.draw(&Rectangle::new([(from, y + 4), (to, y + ROW - 4)], colour.filled()))?;
        text(area, &format!("{mean:.2}"), (to + 5, y + ROW / 2), 12, INK, HPos::Left)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Section;
    use crate::summary::tests::{RUNS, series};

    #[test]
    fn plots_name_every_row_and_allocator() {
        let matrix = Matrix::of(&series(RUNS), Section::Preload).unwrap();
        for svg in [strip(&matrix, Metric::Time).unwrap(), means(&matrix).unwrap()] {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            for name in ["glibc", "tiermalloc", "other"] {
                assert!(svg.contains(name), "{name}");
            }
        }
    }

    #[test]
    fn ticks_keep_their_distance_and_have_one() {
        for ratios in [[0.5, 2.0], [0.05, 40.0], [0.99, 1.01], [0.2, 0.9]] {
            let axis = Axis::over(ratios.into_iter());
            let ticks = axis.ticks();
            assert!(ticks.contains(&1.0) && ticks.len() >= 2, "{ticks:?}");
            for (position, tick) in ticks.iter().enumerate() {
                assert!((LEFT..=WIDTH - RIGHT).contains(&axis.x(*tick)));
                let far = |other: &f64| (axis.x(*other) - axis.x(*tick)).abs() >= 44;
                assert!(ticks[..position].iter().all(far), "{ticks:?}");
            }
        }
        assert_eq!(
            (label(0.5), label(2.0), label(0.0625)),
            ("0.5".into(), "2".into(), "0.062".into())
        );
    }
}
