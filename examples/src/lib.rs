//! Examples of drakkar; see the folders beside this one.
