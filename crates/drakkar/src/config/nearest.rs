//! Finds what somebody probably meant.

/// Returns the candidate that is nearest to `word`, if it is near enough to be a slip of the hand.
///
/// Near enough is a third of the word's length in edits, at least one; case, `-` and `_` do not
/// count as different.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let folded = fold(word);
    let limit = (folded.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edits(&folded, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Brings spellings that people mix up to one form.
pub(super) fn fold(word: &str) -> Vec<char> {
    word.chars()
        .map(|letter| if matches!(letter, '-' | '.') { '_' } else { letter.to_ascii_lowercase() })
        .collect()
}

/// Counts the insertions, deletions, replacements and swaps of neighbours between two words
/// (optimal string alignment).
fn edits(left: &[char], right: &[char]) -> usize {
    let width = right.len() + 1;
    let mut before: Vec<usize> = vec![0; width];
    let mut above: Vec<usize> = (0..width).collect();
    for (i, letter) in left.iter().enumerate() {
        let mut row = vec![i + 1; width];
        for (j, other) in right.iter().enumerate() {
            let replaced = above[j] + usize::from(letter != other);
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && *letter == right[j - 1] && left[i - 1] == *other;
            if swapped {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let keys = ["brokers", "source_topic", "consumer_group", "ui_url"];
        let check = |word, expect| assert_eq!(nearest(word, keys), expect, "{word}");
        check("broker", Some("brokers"));
        check("brokerz", Some("brokers"));
        check("borkers", Some("brokers"));
        check("Source-Topic", Some("source_topic"));
        check("sourcetopic", Some("source_topic"));
        check("ui_ulr", Some("ui_url"));
        check("retention", None);
        check("", None);
    }
}
