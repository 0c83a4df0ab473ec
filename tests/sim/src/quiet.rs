//! Panics that are part of the play are not printed; one that ends the play is remembered.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static IN_PLAY: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Calls `play` without a word about panics that happen in it on this thread; the text of one that
/// leaves it is the error.
pub(crate) fn quietly<T>(play: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if IN_PLAY.get() {
                LAST.set(panic.to_string());
            } else {
                loud(panic);
            }
        }));
    });
    IN_PLAY.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(play));
    IN_PLAY.set(false);
    result.map_err(|_panic| LAST.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panic_that_ends_the_play_is_told() {
        assert_eq!(quietly(|| 7), Ok(7));
        let ended = quietly(|| -> u8 { panic!("enough") });
        assert!(ended.is_err_and(|text| text.contains("enough")));
    }
}
