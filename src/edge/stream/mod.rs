//! Sessions of layer 4.

mod direction;
mod pipes;
mod pump;
#[cfg(test)]
mod pump_tests;
mod side;
