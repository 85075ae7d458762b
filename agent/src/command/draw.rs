//! `adit-agent draw`: a digit that nobody wrote, so that whoever tries the built-in model needs no picture of their own.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use adit_vision::image::digit_picture;
use anyhow::{Context as _, bail};

/// Writes the picture to standard output, unless that is a terminal.
pub(crate) fn draw(digit: u8) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        bail!("a picture is nothing for a terminal: adit-agent draw {digit} > digit.png");
    }
    out.write_all(&digit_picture(digit)?).and_then(|()| out.flush()).context("cannot write the picture")?;
    Ok(ExitCode::SUCCESS)
}
