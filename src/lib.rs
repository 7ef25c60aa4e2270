//! The StoppableContainer operator.
