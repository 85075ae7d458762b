//! Records become tables in Markdown: `sheet` finds medians over rounds, `columns` knows which figures of a scenario matter,
//! `markdown` lays them out.

mod columns;
mod markdown;
mod sheet;

pub(crate) use markdown::markdown;
