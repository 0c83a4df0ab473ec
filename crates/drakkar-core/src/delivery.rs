//! Delivery: where a payload goes, in which batch, how often it is tried, and what a dead letter
//! looks like.
//!
//! Wrapper order, fixed: attempt timeout < retry < dead letter.

mod dead_letter;
mod driver;
mod lane;
mod route;

pub(crate) use dead_letter::{ERROR_BYTES_MAX, LetterSource, cut_text, write_letter};
pub(crate) use driver::{LaneHandle, LaneMail, spawn_lane};
pub(crate) use lane::{LaneItem, LanePolicy};
pub(crate) use route::Router;
