//! Where channels lie in blocks.

/// Runs of channels, each of which begins a block: a plain value is one run, a concatenation has several where a part does not fill
/// its last block. What is left of a block after the end of a run holds nothing that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Channels {
    runs: Vec<usize>,
    lanes: usize,
}

impl Channels {
    pub(crate) fn plain(channels: usize, lanes: usize) -> Self {
        Self { runs: vec![channels], lanes }
    }

    /// One after another.
    pub(crate) fn joined<'a>(parts: impl IntoIterator<Item = &'a Self>, lanes: usize) -> Self {
        let mut runs: Vec<usize> = Vec::new();
        for run in parts.into_iter().flat_map(|part| &part.runs) {
            match runs.last_mut() {
                Some(last) if last.is_multiple_of(lanes) => *last += run,
                _ => runs.push(*run),
            }
        }
        Self { runs, lanes }
    }

    /// Channels of a block.
    pub(crate) const fn lanes(&self) -> usize {
        self.lanes
    }

    pub(crate) fn blocks(&self) -> usize {
        self.runs.iter().map(|run| run.div_ceil(self.lanes)).sum()
    }

    /// For each block how many channels it has.
    pub(crate) fn of_blocks(&self) -> Vec<usize> {
        let blocks = |run: &usize| {
            let run = *run;
            (0..run.div_ceil(self.lanes)).map(move |block| (run - block * self.lanes).min(self.lanes))
        };
        self.runs.iter().flat_map(blocks).collect()
    }

    /// For each block its first channel.
    pub(crate) fn firsts(&self) -> Vec<usize> {
        let first = |next: &mut usize, channels: usize| {
            *next += channels;
            Some(*next - channels)
        };
        self.of_blocks().into_iter().scan(0, first).collect()
    }

    /// The blocks that hold these channels and no others, where there are such: the first of them, and how the channels lie in them.
    pub(crate) fn part(&self, first: usize, channels: usize) -> Option<(usize, Self)> {
        let (firsts, all) = (self.firsts(), self.of_blocks());
        let start = firsts.iter().position(|block| *block == first)?;
        let end = (start..all.len()).find(|block| firsts[*block] + all[*block] == first + channels)?;
        let runs: Vec<Self> = all[start..=end].iter().map(|channels| Self::plain(*channels, self.lanes)).collect();
        Some((start, Self::joined(&runs, self.lanes)))
    }

    /// For each channel its block and its place in there.
    pub(crate) fn places(&self) -> Vec<[usize; 2]> {
        let block = |(block, channels): (usize, usize)| (0..channels).map(move |lane| [block, lane]);
        self.of_blocks().into_iter().enumerate().flat_map(block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fills_its_blocks_runs_into_the_next() {
        let plain = |channels| Channels::plain(channels, 4);
        let joined = Channels::joined(&[plain(8), plain(3), plain(4), plain(5)], 4);
        assert_eq!(joined.runs, [11, 9]);
        assert_eq!((joined.blocks(), joined.of_blocks()), (6, vec![4, 4, 3, 4, 4, 1]));
        assert_eq!(joined.firsts(), [0, 4, 8, 11, 15, 19]);
        let places = joined.places();
        assert_eq!(joined.part(8, 7), Some((2, Channels { runs: vec![3, 4], lanes: 4 })));
        assert_eq!(joined.part(11, 8), Some((3, plain(8))));
        assert_eq!((joined.part(2, 6), joined.part(4, 5), joined.part(4, 99)), (None, None, None));
        assert_eq!((places.len(), places[10], places[11], places[19]), (20, [2, 2], [3, 0], [5, 0]));
    }
}
