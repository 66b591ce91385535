//! Dubbo2.
