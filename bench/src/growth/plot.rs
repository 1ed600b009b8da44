//! The rates, drawn.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;

use super::Point;

const SIZE: (u32, u32) = (860, 480);
const FONT: &str = "sans-serif";
const LEDGER: RGBColor = RGBColor(31, 119, 180);
const CUSTOMERS: RGBColor = RGBColor(214, 102, 13);

/// Draws both lines into one picture, with a point for each round.
///
/// # Errors
/// When it cannot be written.
pub fn draw(path: &Path, rows: &[Point], customers: &[Point]) -> Result<()> {
    let picture = picture(rows, customers).map_err(|error| anyhow!("no picture: {error}"))?;
    std::fs::write(path, picture).with_context(|| format!("{} cannot be written", path.display()))
}

#[expect(clippy::cast_precision_loss, reason = "a size on an axis")]
fn size(point: &Point) -> f64 {
    point.size as f64
}

fn picture(rows: &[Point], customers: &[Point]) -> Result<String, Box<dyn std::error::Error>> {
    let points = || rows.iter().chain(customers);
    let smallest = points().map(size).fold(f64::INFINITY, f64::min);
    let largest = points().map(size).fold(1.0, f64::max);
    let rates = points().flat_map(|point| point.figure.rounds.iter().copied());
    let fastest = rates.fold(1.0, f64::max);

    let mut picture = String::new();
    {
        let area = SVGBackend::with_string(&mut picture, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("Awards as the ledger grows", (FONT, 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(
                (smallest / 2.0..largest * 2.0).log_scale(),
                0.0..fastest * 1.15,
            )?;
        chart
            .configure_mesh()
            .x_desc("rows of the ledger, or customers")
            .y_desc("events per second")
            .x_label_formatter(&|size| format!("{size:.0}"))
            .y_label_formatter(&|rate| format!("{rate:.0}"))
            .label_style((FONT, 13))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (name, points, colour) in [
            ("rows of the ledger", rows, LEDGER),
            ("customers", customers, CUSTOMERS),
        ] {
            let line = points
                .iter()
                .map(|point| (size(point), point.figure.median));
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
            let rounds = points.iter().flat_map(|point| {
                let at = |&rate: &f64| Circle::new((size(point), rate), 4, colour.filled());
                point.figure.rounds.iter().map(at)
            });
            chart.draw_series(rounds)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .label_font((FONT, 14))
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE)
            .draw()?;
        area.present()?;
    }
    Ok(picture)
}
