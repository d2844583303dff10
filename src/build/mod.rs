//! The arrow from a recipe to an image: the stages in their order.

pub mod image;
pub mod output;
pub mod stages;
