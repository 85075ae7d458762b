//! A learning curve as an SVG picture: losses on the left, accuracies on the right, over the epochs.
//!
//! Written by hand, because it is two frames with two lines each: text and a few shapes, no script, readable in any browser
//! on a bright and on a dark ground.

use std::fmt::Write as _;

use crate::train::progress::Epoch;

/// Width and height of the picture, in pixels.
const SIZE: (f64, f64) = (920.0, 380.0);

/// The inside of a frame: its width and height, and how far its top lies below the picture's.
const FRAME: (f64, f64, f64) = (370.0, 240.0, 84.0);

/// Where the insides of the two frames begin.
const LEFTS: [f64; 2] = [62.0, 522.0];

/// Up to so many epochs each has a dot; more would be a caterpillar.
const DOTS: usize = 40;

/// Colours follow the reader's choice of a bright or a dark ground.
const STYLE: &str = "\
svg{background:#fff;font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;font-size:12px}\
text{fill:#57606a}.title{font-size:16px;font-weight:600;fill:#1f2328}.name{font-size:13px;font-weight:600;fill:#1f2328}\
.grid{stroke:#d8dee4;stroke-width:1}.axis{stroke:#8c959f;stroke-width:1}\
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
.train{stroke:#0969da}.held{stroke:#d4590f}.train-dot{fill:#0969da}.held-dot{fill:#d4590f}\
.best{stroke:#8c959f;stroke-width:1;stroke-dasharray:4 4}.ring{fill:none;stroke:#d4590f;stroke-width:2}\
@media(prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#9198a1}.title,.name{fill:#f0f6fc}.grid{stroke:#2a313c}\
.train{stroke:#4493f8}.held{stroke:#f0883e}.train-dot{fill:#4493f8}.held-dot{fill:#f0883e}.ring{stroke:#f0883e}}";

/// What one frame shows.
struct Frame<'a> {
    left: f64,
    name: &'a str,
    train: Vec<f64>,
    held_out: Vec<f64>,
    /// Lowest and highest value of the axis, and the distance of its lines.
    axis: (f64, f64, f64),
    /// What a value is written as.
    write: fn(f64) -> String,
}

/// The curve of these epochs, under a title.
#[must_use]
pub fn learning_curve(title: &str, epochs: &[Epoch]) -> String {
    let (width, height) = SIZE;
    let mut svg = String::new();
    // Writing into a text cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\"><style>{STYLE}</style><title>{0}</title><rect width=\"100%\" height=\"100%\" fill=\"none\"/>\
         <text class=\"title\" x=\"24\" y=\"34\">{0}</text>",
        escaped(title)
    );
    let column = |value: fn(&Epoch) -> f32| epochs.iter().map(|epoch| f64::from(value(epoch))).collect::<Vec<_>>();
    let (train, held_out) = (column(|epoch| epoch.loss), column(|epoch| epoch.held_out_loss));
    let highest = train.iter().chain(&held_out).copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let step = nice(highest.max(1e-6) / 5.0);
    let axis = (0.0, (highest / step).ceil().max(1.0) * step, step);
    draw(&mut svg, &Frame { left: LEFTS[0], name: "Loss", train, held_out, axis, write: number }, epochs);
    let (train, held_out) = (column(|epoch| epoch.accuracy), column(|epoch| epoch.held_out_accuracy));
    let lowest = train.iter().chain(&held_out).copied().filter(|value| value.is_finite()).fold(1.0, f64::min);
    let step = nice((1.0 - lowest).max(0.02) / 5.0);
    // From a line of the axis below the lowest value to all correct; the small part keeps a value on a line there.
    let bottom = (1.0 - ((1.0 - lowest) / step - 1e-9).ceil().max(1.0) * step).max(0.0);
    let axis = (bottom, 1.0, step);
    draw(&mut svg, &Frame { left: LEFTS[1], name: "Accuracy", train, held_out, axis, write: percent }, epochs);
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, frame: &Frame<'_>, epochs: &[Epoch]) {
    let Frame { left, name, axis: (low, high, step), .. } = *frame;
    let (width, height, top) = FRAME;
    let (right, bottom) = (left + width, top + height);
    let y = |value: f64| bottom - (value - low) / (high - low) * height;
    // A single epoch stands in the middle.
    let x = |place: usize| match epochs.len() {
        0 | 1 => left + width / 2.0,
        count => left + place as f64 / (count - 1) as f64 * width,
    };
    let _ = write!(svg, "<text class=\"name\" x=\"{left}\" y=\"{}\">{name}</text>", top - 18.0);
    let lines = ((high - low) / step).round() as usize;
    for line in 0..=lines {
        // Down from the top, which is a round number in both frames.
        let value = high - line as f64 * step;
        if value < low - step * 1e-6 {
            continue;
        }
        let (at, text) = (y(value), (frame.write)(value));
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            left - 8.0,
            at + 4.0
        );
    }
    let _ = write!(svg, "<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>");
    // About eight numbers fit below.
    let every = (nice(epochs.len() as f64 / 8.0).max(1.0)) as usize;
    for (place, epoch) in epochs.iter().enumerate() {
        if epoch.epoch == 1 || epoch.epoch.is_multiple_of(every) {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                x(place),
                bottom + 18.0,
                epoch.epoch
            );
        }
    }
    let _ =
        write!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">epoch</text>", left + width / 2.0, bottom + 38.0);
    let best = epochs.iter().rposition(|epoch| epoch.best);
    if let Some(best) = best {
        let _ = write!(svg, "<path class=\"best\" d=\"M{:.1} {top}V{bottom}\"/>", x(best));
    }
    for (values, class) in [(&frame.train, "train"), (&frame.held_out, "held")] {
        let points: Vec<(f64, f64)> = (0..)
            .zip(values)
            .filter(|(_, value)| value.is_finite())
            .map(|(place, value)| (x(place), y(value.clamp(low, high))))
            .collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = write!(svg, "<path class=\"line {class}\" d=\"M{}\"/>", path.join("L"));
        if points.len() <= DOTS {
            for (x, y) in &points {
                let _ = write!(svg, "<circle class=\"{class}-dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>");
            }
        }
    }
    if let Some((best, value)) = best.and_then(|best| Some((best, frame.held_out.get(best)?)))
        && value.is_finite()
    {
        let _ = write!(
            svg,
            "<circle class=\"ring\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"6\"><title>the weights that are kept: epoch {}, {}</title>\
             </circle>",
            x(best),
            y(value.clamp(low, high)),
            epochs[best].epoch,
            (frame.write)(*value)
        );
    }
    legend(svg, right, top - 22.0);
}

/// Which line is which, to the left of `right`.
fn legend(svg: &mut String, right: f64, y: f64) {
    for (from, class, text) in [(right - 238.0, "train", "training"), (right - 144.0, "held", "held out")] {
        let _ = write!(
            svg,
            "<path class=\"line {class}\" d=\"M{from} {y}h20\"/><text x=\"{}\" y=\"{}\">{text}</text>",
            from + 26.0,
            y + 4.0
        );
    }
    let at = right - 42.0;
    let _ = write!(
        svg,
        "<circle class=\"ring\" cx=\"{at}\" cy=\"{y}\" r=\"5\"/><text x=\"{}\" y=\"{}\">kept</text>",
        at + 12.0,
        y + 4.0
    );
}

/// The next of 1, 2, 5, 10, 20, ... at or above a number.
fn nice(number: f64) -> f64 {
    let power = 10f64.powf(number.log10().floor());
    let lead = [1.0, 2.0, 5.0, 10.0].into_iter().find(|lead| lead * power >= number * (1.0 - 1e-9));
    lead.unwrap_or(10.0) * power
}

fn number(value: f64) -> String {
    // Without the dust of binary fractions, and without zeros at the end.
    let text = format!("{:.6}", value.abs());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn percent(value: f64) -> String {
    format!("{} %", number((value * 1e6).round() / 1e4))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(count: usize) -> Vec<Epoch> {
        let epoch = |place: usize| Epoch {
            epoch: place + 1,
            epochs: count,
            loss: 2.3 / (place + 1) as f32,
            accuracy: 1.0 - 0.5 / (place + 1) as f32,
            held_out_loss: 2.5 / (place + 1) as f32,
            held_out_accuracy: 1.0 - 0.6 / (place + 1) as f32,
            best: true,
        };
        (0..count).map(epoch).collect()
    }

    #[test]
    fn lines_have_a_point_an_epoch_inside_of_their_frame() {
        let svg = learning_curve("pets & <others>", &epochs(10));
        assert!(svg.contains("pets &amp; &lt;others&gt;") && svg.ends_with("</svg>\n"));
        let lines: Vec<&str> = svg.split("<path class=\"line ").skip(1).collect();
        let lines: Vec<&str> =
            lines.iter().filter_map(|line| line.split('"').nth(2)).filter(|d| !d.contains('h')).collect();
        assert_eq!(lines.len(), 4);
        for (line, left) in lines.iter().zip([LEFTS[0], LEFTS[0], LEFTS[1], LEFTS[1]]) {
            let points: Vec<(f64, f64)> = line[1..]
                .split('L')
                .map(|point| point.split_once(' ').unwrap())
                .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
                .collect();
            assert_eq!(points.len(), 10);
            assert_eq!((points[0].0, points[9].0), (left, left + FRAME.0));
            assert!(points.iter().all(|(_, y)| (FRAME.2..=FRAME.2 + FRAME.1).contains(y)), "{points:?}");
            assert!(points.is_sorted_by(|one, next| one.0 < next.0));
        }
        // A loss of 2.5 at the most needs lines at every half, up to 2.5; accuracies from 0.4, at every fifth.
        for text in [">2.5<", ">0.5<", ">0<", ">100 %<", ">40 %<", ">10<", ">epoch<"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn odd_curves_are_drawn_too() {
        let mut odd = epochs(300);
        odd[7].held_out_loss = f32::NAN;
        odd[8].held_out_loss = f32::INFINITY;
        for epochs in [&odd[..], &epochs(1), &[]] {
            let svg = learning_curve("odd", epochs);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        assert_eq!([0.03, 0.2, 0.5001, 7.0, 1.0].map(nice), [0.05, 0.2, 1.0, 10.0, 1.0]);
        assert_eq!((percent(0.995), number(0.30000000000000004)), ("99.5 %".to_owned(), "0.3".to_owned()));
    }
}
