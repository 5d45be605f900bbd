//! Statistics as a drawing: where the bytes are, by tier and by size class.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::record::{Class, Record};
use super::table::PARTS;
use super::units::bytes;

type Drawn<T = ()> = Result<T, Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: i32 = 1000;
/// Rows of bars.
const ROW: i32 = 24;
const BAR: i32 = 15;
/// Where bars begin and end.
const LEFT: i32 = 170;
const RIGHT: i32 = WIDTH - 150;
/// Classes that get a bar.
const CLASSES: usize = 30;

const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);
const FAINT: RGBColor = RGBColor(0x6b, 0x72, 0x7a);
const RULE: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);
/// In the program's hands, cached, free.
const LIVE: RGBColor = RGBColor(0x1f, 0x4e, 0x9e);
const CACHED: RGBColor = RGBColor(0x5b, 0xa3, 0xe0);
const FREE: RGBColor = RGBColor(0xc9, 0xd4, 0xe0);
const BEFORE: RGBColor = RGBColor(0xd6, 0x27, 0x28);

/// A bar of several pieces, and what its length was before.
struct Bar {
    name: String,
    pieces: Vec<(u64, RGBColor)>,
    before: Option<u64>,
}

impl Bar {
    fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.0).sum()
    }
}

/// The drawing; where there is a moment before, its lengths are marked.
pub fn svg(before: Option<&Record>, after: &Record) -> Drawn<String> {
    let (tiers, classes) = (tiers(before, after), classes(before, after));
    let height = 150 + 2 * 74 + ROW * (tiers.len() + classes.len()) as i32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32));
        let area = area.into_drawing_area();
        area.fill(&WHITE)?;
        label(&area, &after.title(), (24, 30), 20, INK, HPos::Left)?;
        if let Some(before) = before {
            let text = format!("red marks: {}", before.title());
            label(&area, &text, (24, 54), 13, BEFORE, HPos::Left)?;
        }
        let mut x = 24;
        for (what, colour) in [("in use", LIVE), ("cached", CACHED), ("free", FREE)] {
            let square = [(x, 72), (x + 12, 84)];
            area.draw(&Rectangle::new(square, colour.filled()))?;
            label(&area, what, (x + 18, 79), 13, INK, HPos::Left)?;
            x += 90;
        }
        let below = panel(&area, 110, "Bytes per tier", "tier", &tiers)?;
        panel(
            &area,
            below + 30,
            "Bytes per size class, in its spans",
            "bytes of an object",
            &classes,
        )?;
        area.present()?;
    }
    Ok(svg)
}

fn tiers(before: Option<&Record>, after: &Record) -> Vec<Bar> {
    let bar = |&(name, what): &(&str, &str)| {
        let colour = match name {
            "live" => LIVE,
            "span_free" | "free_dirty" | "free_clean" | "metadata_free" => FREE,
            "metadata" => FAINT,
            _ => CACHED,
        };
        Bar {
            name: what.to_owned(),
            pieces: vec![(after.total(name), colour)],
            before: before.map(|before| before.total(name)),
        }
    };
    PARTS.iter().map(bar).collect()
}

/// The classes with the most bytes, by size.
fn classes(before: Option<&Record>, after: &Record) -> Vec<Bar> {
    let mut classes: Vec<&Class> = after.classes.iter().filter(|c| c.in_spans > 0).collect();
    classes.sort_by_key(|class| std::cmp::Reverse(class.in_spans));
    classes.truncate(CLASSES);
    classes.sort_by_key(|class| class.size);
    let bar = |class: &&Class| Bar {
        name: super::units::grouped(class.size),
        pieces: vec![(class.live(), LIVE), (class.cached(), CACHED), (class.free(), FREE)],
        before: before.map(|before| before.class(class.size).in_spans),
    };
    classes.iter().map(bar).collect()
}

/// Bars with a title and an axis from `top` on; returns where they end.
fn panel(area: &Area<'_>, top: i32, title: &str, what: &str, bars: &[Bar]) -> Drawn<i32> {
    label(area, title, (24, top), 16, INK, HPos::Left)?;
    label(area, what, (LEFT - 26, top + 22), 12, FAINT, HPos::Right)?;
    let longest = bars.iter().map(|bar| bar.length().max(bar.before.unwrap_or(0))).max();
    let step = step(longest.unwrap_or(0).max(1));
    let end = longest.unwrap_or(0).max(1).div_ceil(step) * step;
    let at = |n: u64| LEFT + (n as f64 / end as f64 * f64::from(RIGHT - LEFT)).round() as i32;
    let (first, bottom) = (top + 34, top + 34 + ROW * bars.len() as i32);
    for tick in 0..=end / step {
        let x = at(tick * step);
        area.draw(&PathElement::new(vec![(x, first), (x, bottom)], RULE.stroke_width(1)))?;
        label(area, bytes(tick * step).trim_end(), (x, top + 22), 12, FAINT, HPos::Center)?;
    }
    for (n, bar) in bars.iter().enumerate() {
        let middle = first + ROW * n as i32 + ROW / 2;
        let (above, below) = (middle - BAR / 2, middle + BAR / 2);
        label(area, &bar.name, (LEFT - 10, middle), 13, INK, HPos::Right)?;
        let mut from = 0;
        for &(length, colour) in &bar.pieces {
            let corners = [(at(from), above), (at(from + length), below)];
            if corners[0].0 < corners[1].0 {
                area.draw(&Rectangle::new(corners, colour.filled()))?;
            }
            from += length;
        }
        if let Some(before) = bar.before {
            let x = at(before);
            let mark =
                PathElement::new(vec![(x, above - 3), (x, below + 3)], BEFORE.stroke_width(2));
            area.draw(&mark)?;
        }
        let end = at(from.max(bar.before.unwrap_or(0)));
        label(area, bytes(from).trim_end(), (end + 8, middle), 12, FAINT, HPos::Left)?;
    }
    Ok(bottom + 10)
}

/// A round number of bytes of which four to eight make `longest`.
fn step(longest: u64) -> u64 {
    let mut step = 1;
    while longest / step >= 8 {
        step = step.saturating_mul(2);
    }
    step
}

fn label(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    side: HPos,
) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&colour);
    let style = style.pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::sample;
    use super::*;

    #[test]
    fn every_tier_and_class_has_a_bar_and_a_label() {
        let svg = svg(None, &sample(1000)).unwrap();
        for (_, what) in PARTS {
            assert!(svg.contains(what), "{what}");
        }
        assert!(
            svg.contains("1,024") && svg.contains("Bytes per tier") && svg.contains("MiB"),
            "{svg}"
        );
        assert!(!svg.contains("red marks"));
        assert!(super::svg(Some(&sample(10)), &sample(1000)).unwrap().contains("red marks"));
        // Nothing at all is drawn as well.
        super::svg(None, &Record::default()).unwrap();
    }

    #[test]
    fn axes_are_round() {
        for longest in [1, 7, 8, 9, 1000, 1 << 30, u64::MAX] {
            let step = step(longest);
            assert!(step.is_power_of_two() && longest / step < 8, "{longest}");
        }
    }
}
