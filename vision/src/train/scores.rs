//! What a classifier gets right, class by class, and what it takes for what.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A picture's class, and the one that it is taken for.
pub(crate) type Found = (usize, usize);

/// How the held-out pictures of one class are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    /// Pictures held out.
    pub pictures: usize,
    /// Of them, read correctly.
    pub right: usize,
}

/// Held-out pictures of one class that are taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confusion {
    /// The class that they show.
    pub shown: usize,
    /// The class that they are taken for.
    pub taken_for: usize,
    /// How many.
    pub pictures: usize,
}

/// A score for each class, and the confusions, the most frequent first.
pub(crate) fn scores(found: &[Found], classes: usize) -> (Vec<Score>, Vec<Confusion>) {
    let mut scores = vec![Score { pictures: 0, right: 0 }; classes];
    let mut confused: BTreeMap<Found, usize> = BTreeMap::new();
    for &(shown, taken_for) in found {
        scores[shown].pictures += 1;
        if shown == taken_for {
            scores[shown].right += 1;
        } else {
            *confused.entry((shown, taken_for)).or_default() += 1;
        }
    }
    let confusion = |((shown, taken_for), pictures)| Confusion { shown, taken_for, pictures };
    let mut confusions: Vec<Confusion> = confused.into_iter().map(confusion).collect();
    confusions.sort_by_key(|confusion| Reverse(confusion.pictures));
    (scores, confusions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_score_and_the_worst_confusion_comes_first() {
        let found = [(0, 0), (0, 2), (1, 1), (2, 0), (2, 0), (2, 2), (0, 0)];
        let (scores, confusions) = scores(&found, 4);
        let read: Vec<_> = scores.iter().map(|score| (score.right, score.pictures)).collect();
        assert_eq!(read, [(2, 3), (1, 1), (1, 3), (0, 0)]);
        let read: Vec<_> = confusions.iter().map(|one| (one.shown, one.taken_for, one.pictures)).collect();
        assert_eq!(read, [(2, 0, 2), (0, 2, 1)]);
    }
}
