//! `libmeltemi.so`.
