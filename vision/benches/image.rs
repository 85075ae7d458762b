//! From the bytes of a photograph to a network's input, stage by stage, at full scale and scaled.
//!
//! `cargo bench -p adit-vision --bench image [-- [ROUNDS] PHOTO...]` prints, for each photograph and each way of decoding,
//! the median and the quartiles of every stage in milliseconds, on one thread. Without photographs it takes those of
//! `../shared/data/images/photos`. With `--serve` it is the half of `benches/images.py` that is ours: it reads lines of `WAY
//! SIZE PHOTO` and answers each with the times of one round.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Instant;

use adit_vision::image::{ImageLimits, Preprocess, decode_for, prepare};

const PHOTOS: [&str; 4] = ["harbour_12mp.jpg", "cat_1080p.jpg", "dog.jpg", "cat_grey_progressive.jpg"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.iter().any(|argument| argument == "--serve") {
        return serve();
    }
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(21);
    let mut photos: Vec<String> = arguments.into_iter().filter(|argument| argument.parse::<usize>().is_err()).collect();
    if photos.is_empty() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/images/photos");
        photos = PHOTOS.iter().map(|photo| folder.join(photo).display().to_string()).collect();
    }
    println!("| photo | decoded | decode ms | prepare ms | together ms | quartiles |");
    println!("|---|---|---|---|---|---|");
    for photo in photos {
        let Ok(bytes) = std::fs::read(&photo) else {
            println!("skipped: {photo} is not there");
            continue;
        };
        let ways = ["full", "scaled"].map(|way| (way, section(way, 224)));
        let mut times = [Vec::new(), Vec::new()];
        let mut widths = [0; 2];
        for round in 0..=rounds {
            // The ways take turns, and the first round warms up.
            for (place, (_, preprocess)) in ways.iter().enumerate() {
                let (decode, prepare, width) = once(&bytes, preprocess);
                widths[place] = width;
                if round > 0 {
                    times[place].push([decode, prepare, decode + prepare]);
                }
            }
        }
        let name = Path::new(&photo).file_name().unwrap().to_string_lossy().into_owned();
        for (((way, _), times), width) in ways.iter().zip(&times).zip(widths) {
            let quantile = |stage: usize, part: f64| {
                let mut column: Vec<f64> = times.iter().map(|times| times[stage]).collect();
                column.sort_by(f64::total_cmp);
                column[((column.len() - 1) as f64 * part) as usize]
            };
            println!(
                "| {name} | {way}, {width} wide | {:.2} | {:.2} | {:.2} | {:.2} to {:.2} |",
                quantile(0, 0.5),
                quantile(1, 0.5),
                quantile(2, 0.5),
                quantile(2, 0.25),
                quantile(2, 0.75)
            );
        }
    }
}

/// What most classifiers of ImageNet are given, here of this height and width.
fn section(way: &str, size: usize) -> Preprocess {
    let section = format!(
        r#"{{ "size": [{size}, {size}], "resize": {{ "short_side": {} }}, "decode": "{way}",
             "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225] }}"#,
        size * 256 / 224
    );
    serde_json::from_str(&section).unwrap()
}

/// Milliseconds of decoding and of preparing, and the width that was decoded.
fn once(bytes: &[u8], preprocess: &Preprocess) -> (f64, f64, u32) {
    let begun = Instant::now();
    let pixels = decode_for(bytes, &ImageLimits::default(), preprocess).unwrap();
    let decoded = Instant::now();
    let prepared = prepare(&pixels, preprocess).unwrap();
    let ended = Instant::now();
    std::hint::black_box(prepared);
    let milliseconds = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
    (milliseconds(begun, decoded), milliseconds(decoded, ended), pixels.width())
}

fn serve() {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap();
        let preprocess = section(word(), word().parse().unwrap());
        let (decode, prepare, _) = once(&std::fs::read(word()).unwrap(), &preprocess);
        println!("{decode} {prepare}");
        std::io::stdout().flush().unwrap();
    }
}
