// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A picture of each workload: a bar for everyone, as long as the median, with the rounds as a whisker.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::bench::outcome::Outcome;

/// Width, and height of one bar with its space.
const WIDTH: u32 = 800;
const BAR: u32 = 44;

/// Height of title and axis.
const FRAME: u32 = 110;

/// Our own bar, and the others'.
const OURS: RGBColor = RGBColor(0x1b, 0x7f, 0x5c);
const THEIRS: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);

/// Draws it.
///
/// # Errors
///
/// When it cannot be written.
pub fn draw(outcome: &Outcome, path: &Path) -> Result<()> {
    let wrong = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    let count = outcome.contestants.len();
    let longest = outcome.contestants.iter().map(|figures| figures.rate.max).fold(0.0, f64::max);
    let root = SVGBackend::new(path, (WIDTH, FRAME + BAR * count as u32)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| wrong(&error))?;
    let names: Vec<_> = outcome.contestants.iter().map(|figures| figures.contestant.to_string()).collect();
    // From the bottom up.
    let name = |row: &SegmentValue<usize>| match row {
        SegmentValue::CenterOf(row) if *row < count => names[count - 1 - row].clone(),
        _ => String::new(),
    };
    let unit = if outcome.is_bulk { "MB/s" } else { "connections/s" };
    let mut chart = ChartBuilder::on(&root)
        .caption(&outcome.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(120)
        .build_cartesian_2d(0.0..longest * 1.08, (0..count.saturating_sub(1)).into_segmented())
        .map_err(|error| wrong(&error))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(count + 1)
        .y_label_formatter(&name)
        .x_desc(unit)
        .draw()
        .map_err(|error| wrong(&error))?;
    for (row, figures) in outcome.contestants.iter().rev().enumerate() {
        let (rate, middle) = (figures.rate, SegmentValue::CenterOf(row));
        let colour = if figures.contestant.is_limiter() { OURS } else { THEIRS };
        let corners = [(0.0, SegmentValue::Exact(row)), (rate.median, SegmentValue::Exact(row + 1))];
        let mut bar = Rectangle::new(corners, colour.filled());
        bar.set_margin(7, 7, 0, 0);
        chart.draw_series([bar]).map_err(|error| wrong(&error))?;
        let whisker = ErrorBar::new_horizontal(middle, rate.min, rate.median, rate.max, BLACK.filled(), 10);
        chart.draw_series([whisker]).map_err(|error| wrong(&error))?;
    }
    root.present().map_err(|error| wrong(&error))
}
