//! What one completion costs while the oldest offset blocks the watermark, at two distances.
//!
//! The cost must not depend on the distance: registering and finishing are constant, amortised. Run
//! with `cargo bench -p drakkar-core --bench watermark`.

use drakkar_api::Offset;
use drakkar_core::{Token, Watermark};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How many completions are measured for each distance.
const COMPLETIONS: usize = 1_000_000;

/// Registers a head that stays unfinished and `distance` offsets behind it, every tenth of which is
/// followed by a gap.
fn blocked(distance: usize) -> (Watermark, Token, Vec<Token>) {
    let mut watermark = Watermark::new();
    let mut next = 0;
    let mut register = || {
        next += if next % 10 == 0 { 2 } else { 1 };
        watermark.register(Offset::new(next)).expect("ascending")
    };
    let head = register();
    let tokens = (0..distance).map(|_| register()).collect();
    (watermark, head, tokens)
}

/// Finishes all but the head, newest first and oldest first in turn, and then the head.
fn finish(distance: usize) -> (Duration, Duration) {
    let (mut watermark, head, tokens) = blocked(distance);
    let mut tokens = std::collections::VecDeque::from(tokens);
    let began = Instant::now();
    while let Some(token) = tokens.pop_back() {
        watermark.finish(token);
        if let Some(token) = tokens.pop_front() {
            watermark.finish(token);
        }
        black_box(watermark.position());
    }
    let completions = began.elapsed();
    assert_eq!(watermark.ahead(), distance + 1, "the head blocks");
    let began = Instant::now();
    watermark.finish(head);
    let release = began.elapsed();
    assert_eq!(watermark.unfinished() + watermark.ahead(), 0);
    (completions, release)
}

#[expect(clippy::print_stdout, reason = "a bench reports on its standard output")]
fn main() {
    for distance in [10_000, COMPLETIONS] {
        let rounds = COMPLETIONS / distance;
        let (mut completions, mut release) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            let (one, last) = finish(distance);
            completions += one;
            release += last;
        }
        let nanos = |time: Duration| time.as_nanos() as f64 / COMPLETIONS as f64;
        println!(
            "{distance:>9} offsets behind a blocked head: {:6.1} ns per completion, {:6.1} ns per \
             offset released at its end",
            nanos(completions),
            nanos(release),
        );
    }
}
