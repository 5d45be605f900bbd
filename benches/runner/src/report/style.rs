//! What an allocator looks like: the same colour and mark in every plot.

use plotters::style::RGBColor;

use crate::peers::{OURS, rank};

/// The shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A disc.
    Disc,
    /// A square.
    Square,
    /// A triangle.
    Triangle,
    /// A ring.
    Ring,
}

/// The colour and the shape of an allocator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Its colour on white.
    pub colour: RGBColor,
    /// The shape of its mark.
    pub shape: Shape,
    /// Whether it is the one that is looked for.
    pub is_ours: bool,
}

/// Ink for text.
pub const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);
/// Ink for what is said in passing.
pub const FAINT: RGBColor = RGBColor(0x6b, 0x72, 0x7a);
/// Lines of the grid.
pub const RULE: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);
/// Every other row.
pub const BAND: RGBColor = RGBColor(0xf5, 0xf7, 0xf9);

const RED: RGBColor = RGBColor(0xd6, 0x27, 0x28);
/// Nine colours that differ from each other, and from red, in hue or in lightness.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0x1f, 0x4e, 0x9e),
    RGBColor(0x5b, 0xa3, 0xe0),
    RGBColor(0x2e, 0x8b, 0x57),
    RGBColor(0xe0, 0x9f, 0x1f),
    RGBColor(0x7b, 0x4f, 0xa6),
    RGBColor(0x1b, 0xa3, 0xa3),
    RGBColor(0x8c, 0x5a, 0x33),
    RGBColor(0xd9, 0x6f, 0xb0),
    RGBColor(0x8f, 0xa8, 0x2a),
];

/// The look of the allocator of this name.
pub fn look(peer: &str) -> Look {
    if peer == OURS {
        return Look { colour: RED, shape: Shape::Disc, is_ours: true };
    }
    // The system's and ours come first and have looks of their own.
    let Some(number) = rank(peer).checked_sub(2) else {
        return Look { colour: INK, shape: Shape::Ring, is_ours: false };
    };
    let shape = match number / COLOURS.len() % 3 {
        0 => Shape::Disc,
        1 => Shape::Square,
        _ => Shape::Triangle,
    };
    Look { colour: COLOURS[number % COLOURS.len()], shape, is_ours: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocators_of_one_plot_can_be_told_apart() {
        let names = crate::peers::names();
        for (position, name) in names.iter().enumerate() {
            for other in &names[..position] {
                assert_ne!(look(name), look(other), "{name} and {other}");
            }
        }
        assert!(look("tiermalloc").is_ours && !look("glibc").is_ours);
    }
}
