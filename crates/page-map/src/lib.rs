//! A lock-free radix tree from page numbers to spans and size classes.
#![no_std]
